"""A trial's history in Optuna's tables, brought to what an attempt reported: each report once, and no other.

Optuna adds and changes; it takes nothing away. That is done on its tables, in the same store and behind the same
fence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import ColumnElement, TableClause, column, delete, table

from hpsearch.trial import Report

_values = table("trial_intermediate_values", column("trial_id"), column("step"))
_facts = table("trial_user_attributes", column("trial_id"), column("key"))
_marks = table("trial_system_attributes", column("trial_id"), column("key"))
_PREFIX = "report "
_RUNG = "completed_rung_%"
"""How successive halving and hyperband know how far a trial got (optuna/pruners/_successive_halving.py). The pruner
finds the rungs below a step again by itself."""


def bring_values(storage: RDBStorage, trial: FrozenTrial, reports: Sequence[Report], objective: str) -> None:
    wanted = {report.step: report.value(objective) for report in reports}
    stored = trial.intermediate_values
    stale = [step for step in stored if step not in wanted]
    if stale:
        _take_away(storage, _values, (_values.c.trial_id == trial._trial_id) & _values.c.step.in_(stale))
        _take_away(storage, _marks, (_marks.c.trial_id == trial._trial_id) & _marks.c.key.like(_RUNG))
    for step, value in wanted.items():
        if step not in stored or not _is_same(stored[step], value):
            storage.set_trial_intermediate_value(trial._trial_id, step, value)


def bring_attributes(
    storage: RDBStorage, trial: FrozenTrial, reports: Sequence[Report], objectives: Sequence[str]
) -> None:
    """Of a trial with several objectives: `report 1`, `report 2`, … each with its values by name."""
    wanted = {f"{_PREFIX}{report.step}": {name: report.value(name) for name in objectives} for report in reports}
    stale = [key for key in trial.user_attrs if key.startswith(_PREFIX) and key not in wanted]
    if stale:
        _take_away(storage, _facts, (_facts.c.trial_id == trial._trial_id) & _facts.c.key.in_(stale))
    for key, values in wanted.items():
        if trial.user_attrs.get(key) != values:
            storage.set_trial_user_attr(trial._trial_id, key, values)


def kept_reports(trial: FrozenTrial) -> dict[int, float]:
    """The first objective at each report of a trial with several."""
    kept = {
        int(key.removeprefix(_PREFIX)): next(iter(values.values()))
        for key, values in trial.user_attrs.items()
        if key.startswith(_PREFIX)
    }
    return dict(sorted(kept.items()))


def _take_away(storage: RDBStorage, rows: TableClause, which: ColumnElement[bool]) -> None:
    with storage.engine.begin() as connection:
        connection.execute(delete(rows).where(which))


def _is_same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
