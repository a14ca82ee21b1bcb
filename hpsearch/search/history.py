"""Bringing a trial's history in Optuna's tables to what its attempt reported: each report once, and no others.

Optuna can add and change reports, but not remove them. So the difference to the stored trial is computed here, and
written by `hpsearch.store.changes`.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import TypeVar

from optuna.trial import FrozenTrial

from hpsearch.spec.metrics import Metric
from hpsearch.store.changes import Changes
from hpsearch.trial import Report

K = TypeVar("K")
V = TypeVar("V")
_PREFIX = "report "
_RUNG = "completed_rung_"
"""The attribute by which successive halving and hyperband know a trial's rung (optuna/pruners/_successive_halving.py).
The pruner recomputes the rungs below a step by itself.
"""


def bring_values(changes: Changes, trial: FrozenTrial, reports: Sequence[Report], objective: Metric) -> None:
    """Makes the changes that bring the trial's intermediate values to `reports`. `trial` is as the store has it once
    `changes` are written.
    """
    wanted = {report.step: report.value(objective) for report in reports}
    stored = trial.intermediate_values
    if stale := stored.keys() - wanted.keys():
        changes.stale_reports |= stale
        changes.stale_marks |= {key for key in trial.system_attrs if key.startswith(_RUNG)}
        trial.system_attrs = _without(trial.system_attrs, changes.stale_marks)
    new = {step: value for step, value in wanted.items() if step not in stored or not _is_same(stored[step], value)}
    changes.reports = _without(changes.reports, stale) | new
    trial.intermediate_values = wanted


def bring_attributes(
    changes: Changes, trial: FrozenTrial, reports: Sequence[Report], objectives: Sequence[Metric]
) -> None:
    """For a trial with several objectives: attributes `report 1`, `report 2`, … each with its values by name."""
    wanted = {
        f"{_PREFIX}{report.step}": {objective.name: report.value(objective) for objective in objectives}
        for report in reports
    }
    stored = trial.user_attrs
    stale = {key for key in stored if key.startswith(_PREFIX)} - wanted.keys()
    changes.stale_facts |= stale
    new = {key: values for key, values in wanted.items() if stored.get(key) != values}
    changes.facts = _without(changes.facts, stale) | new
    trial.user_attrs = _without(stored, stale) | wanted


def _without(these: Mapping[K, V], keys: Container[K]) -> dict[K, V]:
    return {key: value for key, value in these.items() if key not in keys}


def kept_reports(trial: FrozenTrial) -> dict[int, float]:
    """The first objective at each report of a trial with several objectives."""
    kept = {
        int(key.removeprefix(_PREFIX)): next(iter(values.values()))
        for key, values in trial.user_attrs.items()
        if key.startswith(_PREFIX)
    }
    return dict(sorted(kept.items()))


def _is_same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
