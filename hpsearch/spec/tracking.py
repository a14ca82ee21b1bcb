"""The trackers, as facts: where a study's trials may be followed besides hpsearch's own store, and what each needs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


def missing_trackers(names: Iterable[TrackerName]) -> list[TrackerName]:
    """The trackers whose library is not installed. A folder of that name doesn't count: MLflow and wandb both create
    one in their working directory, and Python takes it for a namespace package.
    """
    found = {name: find_spec(name) for name in names}
    return [name for name, spec in found.items() if spec is None or spec.origin is None]
