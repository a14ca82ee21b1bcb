"""The changes to one trial, collected and written to Optuna's tables at once: one statement per table.

Optuna writes each parameter, report and attribute in a transaction of its own and looks at the trial before each
(5.0.0, storages/_rdb/storage.py). The rows are the same as Optuna's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb.models import (
    StudyModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, delete, func, insert, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

_TRIALS: Any = TrialModel.__table__
_PARAMS: Any = TrialParamModel.__table__
_REPORTS: Any = TrialIntermediateValueModel.__table__
_VALUES: Any = TrialValueModel.__table__
_FACTS: Any = TrialUserAttributeModel.__table__
_MARKS: Any = TrialSystemAttributeModel.__table__


@dataclass
class Changes:
    """Changes of one trial. Deletions come first. `end` is its state and values."""

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    stale_reports: set[int] = field(default_factory=set)
    stale_facts: set[str] = field(default_factory=set)
    stale_marks: set[str] = field(default_factory=set)
    end: tuple[TrialState, Sequence[float] | None] | None = None

    def __bool__(self) -> bool:
        return self != Changes()


def write(connection: Connection, trial_id: int, changes: Changes) -> None:
    """Can be repeated, as the answer to an earlier call may have been lost. The caller has checked that the trial is
    running.
    """
    for table, column, stale in (
        (_REPORTS, "step", changes.stale_reports),
        (_FACTS, "key", changes.stale_facts),
        (_MARKS, "key", changes.stale_marks),
    ):
        if stale:
            connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c[column].in_(list(stale))))
    params = [
        {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(distribution)}
        for name, (value, distribution) in changes.params.items()
    ]
    _put(connection, _PARAMS, "param_name", trial_id, params)
    _put(connection, _REPORTS, "step", trial_id, [_report(*report) for report in changes.reports.items()])
    _put(connection, _FACTS, "key", trial_id, _attributes(changes.facts))
    _put(connection, _MARKS, "key", trial_id, _attributes(changes.marks))
    if changes.end is not None:
        state, values = changes.end
        _put(connection, _VALUES, "objective", trial_id, [_value(*value) for value in enumerate(values or ())])
        ended = {"state": state, "datetime_complete": _now()}
        connection.execute(update(_TRIALS).where(_TRIALS.c.trial_id == trial_id).values(ended))


def create(connection: Connection, study_id: int, template: FrozenTrial) -> FrozenTrial:
    """Creates a trial with the template's state and attributes; numbers it under the same lock as Optuna."""
    studies: Any = StudyModel.__table__
    connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())
    number = connection.scalar(select(func.count()).select_from(_TRIALS).where(_TRIALS.c.study_id == study_id)) or 0
    row = {"study_id": study_id, "number": number, "state": template.state, "datetime_start": _now()}
    inserted = connection.execute(insert(_TRIALS).values(row)).inserted_primary_key
    assert inserted is not None
    write(connection, inserted[0], Changes(facts=template.user_attrs, marks=template.system_attrs))
    template.number, template._trial_id = number, inserted[0]
    return template


def _now() -> datetime:
    """Optuna's columns hold UTC without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _attributes(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _report(step: int, value: float) -> dict[str, Any]:
    stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def _value(objective: int, value: float) -> dict[str, Any]:
    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return {"objective": objective, "value": stored, "value_type": kind}


def _put(connection: Connection, table: Table, key: str, trial_id: int, rows: list[dict[str, Any]]) -> None:
    """Inserts the rows, or updates those whose key exists."""
    if not rows:
        return
    changed = [name for name in rows[0] if name != key]
    statement: Any
    match connection.dialect.name:
        case "postgresql" | "sqlite" as name:
            upsert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[name](table)
            statement = upsert.on_conflict_do_update(
                index_elements=["trial_id", key], set_={column: upsert.excluded[column] for column in changed}
            )
        case _:
            upsert = mysql.insert(table)
            statement = upsert.on_duplicate_key_update({column: upsert.inserted[column] for column in changed})
    connection.execute(statement, [{"trial_id": trial_id, **row} for row in rows])
