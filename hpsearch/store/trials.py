"""Optuna's storage, made fast for large studies: a finished trial is read once, and many trials in few statements.

Optuna's own storage reads all trials of a study every time, one object per parameter, report and attribute (5.0.0,
storages/_rdb/storage.py, `_get_trials`), and the start of a trial does it twice. Only this one method is replaced, so
everything that reads trials through Optuna gets faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
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
from sqlalchemy import ColumnElement, Connection, Table, Text, cast, func, or_, select

_MANY = 300  # most ids in one statement; for more of them the whole study is read
_JOINED: dict[str, Callable[[Table], ColumnElement[str]]] = {
    "sqlite": lambda t: func.group_concat(func.json_quote(t.c.key) + ":" + t.c.value_json, ","),
    "postgresql": lambda t: func.string_agg(cast(func.to_json(t.c.key), Text) + ":" + t.c.value_json, ","),
}
"""The attributes of a trial as the inside of one JSON object: their values are JSON already. For MySQL one row each:
its GROUP_CONCAT silently truncates at `group_concat_max_len`.
"""
_MOMENT = timedelta(seconds=2)
"""MySQL stores the end of a trial in whole seconds. A trial that ended just now may be reopened and end again in the
same second.
"""

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
Ended = tuple[int, int, TrialState, datetime | None, datetime | None]
"""Trial id, number, state, start and end: a reopened trial has another end, or another start."""


class QuickStorage(RDBStorage):
    """Caches finished trials: callers that read them without a deep copy must not change them."""

    def __init__(self, url: str, **options: Any) -> None:
        self._finished: dict[int, dict[Ended, FrozenTrial]] = {}
        try:
            super().__init__(url, **options)
        except BaseException:
            if hasattr(self, "engine"):  # Optuna leaves its connection open (5.0.0, storages/_rdb/storage.py)
                self.engine.dispose()
            raise

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        whole = states is None and trial_id_greater_than < 0
        known = self._finished.get(study_id, {})
        with self.engine.begin() as connection:
            self._check_that_the_study_is_there(connection, study_id)
            chosen = ended_rows(study_id, states, included_trial_ids, trial_id_greater_than)
            rows = [tuple(row) for row in connection.execute(chosen).all()]
            news = [row for row in rows if row not in known]
            read = read_trials(connection, study_id, news) if news else {}
        trials = [known.get(row) or read[row[0]] for row in rows]
        finished = {row: trial for row, trial in zip(rows, trials, strict=True) if self._stays(row)}
        self._finished[study_id] = finished if whole else known | finished
        return trials

    def _stays(self, row: Any) -> bool:
        _, _, state, _, end = row
        if self.engine.dialect.name != "mysql":
            return state not in UNFINISHED
        return state not in UNFINISHED and end is not None and datetime.now(UTC).replace(tzinfo=None) - end > _MOMENT

    @staticmethod
    def _check_that_the_study_is_there(connection: Connection, study_id: int) -> None:
        found = connection.scalar(select(StudyModel.study_id).where(StudyModel.study_id == study_id))
        if found is None:
            raise KeyError("Record does not exist.")  # Optuna's own words


def ended_rows(study_id: int, states: Any, included: Collection[int], greater_than: int) -> Any:
    """Rows as `Ended`."""
    trials: Any = TrialModel.__table__
    wanted = (trials.c.trial_id, trials.c.number, trials.c.state, trials.c.datetime_start, trials.c.datetime_complete)
    chosen = select(*wanted).where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
    if states is not None:
        chosen = chosen.where(trials.c.state.in_(list(states)))
    if greater_than < 0:
        return chosen
    older = [trial_id for trial_id in included if trial_id <= greater_than]
    return chosen.where(or_(trials.c.trial_id > greater_than, trials.c.trial_id.in_(older)))


def read_trials(connection: Connection, study_id: int, rows: Collection[Ended]) -> dict[int, FrozenTrial]:
    chosen = _Chosen(connection, study_id, [row[0] for row in rows])
    user_attrs = chosen.attributes(TrialUserAttributeModel.__table__)
    system_attrs = chosen.attributes(TrialSystemAttributeModel.__table__)
    reports = chosen.reports()
    params, distributions = chosen.params()
    values = chosen.values()
    return {
        trial_id: FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=values.get(trial_id),
            datetime_start=_local(begin),
            datetime_complete=_local(end),
            params=params.get(trial_id, {}),
            distributions=distributions.get(trial_id, {}),
            user_attrs=user_attrs.get(trial_id, {}),
            system_attrs=system_attrs.get(trial_id, {}),
            intermediate_values=reports.get(trial_id, {}),
            trial_id=trial_id,
        )
        for trial_id, number, state, begin, end in rows
    }


class _Chosen:
    """Rows of the other tables for these trials: trial id → value."""

    def __init__(self, connection: Connection, study_id: int, ids: list[int]) -> None:
        self._connection = connection
        trials = TrialModel.__table__
        self._ids: Any = ids if len(ids) <= _MANY else select(trials.c.trial_id).where(trials.c.study_id == study_id)

    def _rows(self, table: Any, *wanted: Any) -> Any:
        """Tuples, the trial's id first."""
        return self._connection.execute(select(table.c.trial_id, *wanted).where(table.c.trial_id.in_(self._ids))).all()

    def attributes(self, table: Any) -> dict[int, dict[str, Any]]:
        if (join := _JOINED.get(self._connection.dialect.name)) is None:
            return self._attributes_one_by_one(table)
        trial_id, joined = table.c.trial_id, join(table)
        chosen = select(trial_id, joined).where(trial_id.in_(self._ids)).group_by(trial_id)
        return {of: json.loads(f"{{{text}}}") for of, text in self._connection.execute(chosen).all()}

    def _attributes_one_by_one(self, table: Any) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for of, key, value in self._rows(table, table.c.key, table.c.value_json):
            found.setdefault(of, {})[key] = json.loads(value)
        return found

    def reports(self) -> dict[int, dict[int, float]]:
        found: dict[int, dict[int, float]] = {}
        to_value = TrialIntermediateValueModel.stored_repr_to_intermediate_value
        table: Any = TrialIntermediateValueModel.__table__
        wanted = (table.c.step, table.c.intermediate_value, table.c.intermediate_value_type)
        for of, step, value, kind in self._rows(table, *wanted):
            found.setdefault(of, {})[step] = to_value(value, kind)
        return found

    def params(self) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, BaseDistribution]]]:
        """The values and their distributions, in the order in which they were drawn."""
        params: dict[int, dict[str, Any]] = {}
        distributions: dict[int, dict[str, BaseDistribution]] = {}
        table: Any = TrialParamModel.__table__
        rows = self._rows(table, table.c.param_id, table.c.param_name, table.c.param_value, table.c.distribution_json)
        for of, _, name, value, text in sorted(rows, key=lambda row: row[1]):
            distribution = _distribution(text)
            params.setdefault(of, {})[name] = distribution.to_external_repr(value)
            distributions.setdefault(of, {})[name] = distribution
        return params, distributions

    def values(self) -> dict[int, list[float]]:
        found: dict[int, list[tuple[int, float]]] = {}
        table: Any = TrialValueModel.__table__
        for of, objective, value, kind in self._rows(table, table.c.objective, table.c.value, table.c.value_type):
            found.setdefault(of, []).append((objective, TrialValueModel.stored_repr_to_value(value, kind)))
        return {of: [value for _, value in sorted(pairs)] for of, pairs in found.items()}


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """A study has few, each stored with every trial."""
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """Optuna stores UTC and shows local time, both without a time zone."""
    return moment and moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
