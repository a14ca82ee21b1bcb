"""hpsearch: hyperparameter search for QLoRA fine-tuning that can be left running."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from hpsearch.api.run import Run, load_run
    from hpsearch.api.study import BestTrial, Report, Study, open_study

__version__ = "0.2.0"
__all__ = ["BestTrial", "Report", "Run", "Study", "load_run", "metric", "open_study"]

_HOMES = dict.fromkeys(("Run", "load_run"), "hpsearch.api.run")
_HOMES |= dict.fromkeys(("BestTrial", "Report", "Study", "open_study"), "hpsearch.api.study")
"""Importing them takes a second: delayed until they are used (PEP 562)."""

if not TYPE_CHECKING:  # else a misspelled name would pass every type check

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *_HOMES})


_Function = TypeVar("_Function", bound=Callable[..., float])


def metric(
    *,
    direction: Literal["minimize", "maximize"],
    low: float | None = None,
    high: float | None = None,
    unit: Literal["share"] | None = None,
    title: str | None = None,
) -> Callable[[_Function], _Function]:
    """Decorator for a function `(reference: str, prediction: str) -> float` of a study's `evaluation.metrics_file`.

    `low` and `high`: the ends of its range, if it has any. `unit="share"`: shown in percent. `title`: its name for
    people, else the function's.

    All this is read from the file's text (`spec.own_metrics`), so each must be a plain value there; at run time the
    decorator does nothing.
    """
    del direction, low, high, unit, title
    return lambda function: function
