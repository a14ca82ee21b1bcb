"""hpsearch: hyperparameter search for QLoRA fine-tuning that can be left running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

__version__ = "0.2.0"
__all__ = ["metric"]

_Function = TypeVar("_Function", bound=Callable[..., float])


def metric(
    *,
    direction: Literal["minimize", "maximize"],
    low: float | None = None,
    high: float | None = None,
    unit: Literal["share"] | None = None,
    title: str | None = None,
) -> Callable[[_Function], _Function]:
    """Above a function `(reference: str, prediction: str) -> float` of a study's `evaluation.metrics_file`.

    `low` and `high`: the ends of its range, where it has any. `unit="share"`: told in percent. `title`: its name for
    people, else the function's.

    All this is read from the file's text (`spec.own_metrics`), so each must stand there as a plain value; when the
    file runs, nothing is done with it.
    """
    del direction, low, high, unit, title
    return lambda function: function
