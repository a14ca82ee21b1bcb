"""What `store.changes` writes of a trial are the rows that Optuna itself writes, column by column."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import Trial, TrialState, create_trial
from sqlalchemy import text

from hpsearch.search.draft import Draft
from hpsearch.store import Store
from hpsearch.store.changes import create, write

SPACE: dict[str, BaseDistribution] = {
    "z": FloatDistribution(1e-9, 1.0, log=True),
    "step": FloatDistribution(0.0, 0.3, step=0.1),
    "a": CategoricalDistribution([None, True, "x", 0.1]),
    "ключ": IntDistribution(1, 9),
}
MARKS = {"hpsearch:slot": 3, "generation": {"z": 1 / 3, "ключ": None}}
FACTS = {"ключ": "日本語\n'\"\\", "nan": math.nan, "nested": {"list": [1, None, 1e-17]}, "none": None, "": 7}
ATTRIBUTES = ("trial_user_attributes", "trial_system_attributes")
TABLES = ("trial_params", "trial_values", "trial_intermediate_values", *ATTRIBUTES)
End = tuple[list[float] | None, TrialState, dict[int, float]]
"""Values, state, reports."""
ONE: list[End] = [
    ([1 / 3], TrialState.COMPLETE, {1: 0.1, 2: 1e-300, 7: 1e300}),
    ([-0.0], TrialState.COMPLETE, {}),
    ([math.inf], TrialState.COMPLETE, {1: math.nan, 2: math.inf, 3: -math.inf}),
    (None, TrialState.PRUNED, {1: 2.0, 3: 0.7}),
    (None, TrialState.PRUNED, {1: 2.0, 3: math.nan}),
    (None, TrialState.PRUNED, {1: -math.inf}),
    (None, TrialState.PRUNED, {}),
    (None, TrialState.FAIL, {1: 2.0}),
]
SEVERAL: list[End] = [
    ([0.1, -math.inf, 3], TrialState.COMPLETE, {}),
    (None, TrialState.PRUNED, {}),
    (None, TrialState.FAIL, {}),
]


@pytest.fixture(autouse=True)
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where local time is not UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def stock(store: Store, backend: str) -> Iterator[RDBStorage]:
    unprepared = {"connect_args": {"prepare_threshold": None}} if backend == "pgbouncer" else {}
    storage = RDBStorage(store.url.render_as_string(hide_password=False), engine_kwargs=unprepared)
    yield storage
    storage.engine.dispose()


def by_optuna(study: Study, end: End) -> None:
    values, state, reports = end
    trial = study.ask()
    for name, value in MARKS.items():
        study._storage.set_trial_system_attr(trial._trial_id, name, value)
    finish(trial, reports)
    study.tell(trial, values, state)


def finish(trial: Trial, reports: dict[int, float]) -> None:
    for name, distribution in SPACE.items():
        trial._suggest(name, distribution)
    for name, fact in FACTS.items():
        trial.set_user_attr(name, fact)
    for step, value in reports.items():
        trial.report(value, step)


def by_us(store: Store, study: Study, end: End) -> None:
    """As `Search` does it: created in one transaction, drawn and reported in a draft, written in another one."""
    values, state, reports = end
    with store.optuna.engine.begin() as connection:
        own = create(connection, study._study_id, create_trial(state=TrialState.RUNNING, system_attrs=MARKS))
    draft = Draft(study._study_id, study.study_name, study.directions, [], own)
    asked = optuna.load_study(study_name=study.study_name, storage=draft, sampler=study.sampler)
    finish(Trial(asked, own._trial_id), {})
    own.intermediate_values = reports
    draft.changes.reports = reports
    asked.tell(own.number, values, state)
    with store.optuna.engine.begin() as connection:
        write(connection, own._trial_id, draft.changes)


def rows(store: Store, study: Study) -> dict[str, list[Any]]:
    """Of every trial; without the ids, and of a moment whether it is this one."""
    found: dict[str, list[Any]] = {}
    with store.optuna.engine.connect() as connection:
        for table in ("trials", *TABLES):
            joined = f"FROM {table} t JOIN trials ON trials.trial_id = t.trial_id"
            chosen = text(f"SELECT trials.number, t.* {joined} WHERE trials.study_id = :id ORDER BY 2")
            read = connection.execute(chosen, {"id": study._study_id}).mappings()
            found[table] = [{k: shown(v, k) for k, v in row.items() if not k.endswith("_id")} for row in read]
    for table in ATTRIBUTES:
        found[table].sort(key=lambda row: (row["number"], row["key"]))
    return found


def shown(value: Any, column: str) -> Any:
    if value is None or not column.startswith("datetime"):
        return repr(value)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    is_now = abs(datetime.now(UTC).replace(tzinfo=None) - moment) < timedelta(hours=1)
    return type(value), len(str(value)) if isinstance(value, str) else 0, is_now


@pytest.mark.parametrize(("ends", "num_objectives"), [(ONE, 1), (SEVERAL, 3)])
def test_the_rows_are_optuna_s(ends: list[End], num_objectives: int, store: Store, stock: RDBStorage) -> None:
    directions = [StudyDirection.MINIMIZE] * num_objectives
    studies = [
        optuna.create_study(study_name=name, storage=storage, directions=directions, sampler=RandomSampler(seed=0))
        for name, storage in (("theirs", stock), ("ours", store.optuna))
    ]
    for end in ends:
        by_optuna(studies[0], end)
        by_us(store, studies[1], end)
    theirs, ours = (rows(store, study) for study in studies)
    assert [len(theirs[table]) for table in ("trials", "trial_params")] == [len(ends), len(ends) * len(SPACE)]
    assert all(theirs[table] for table in TABLES if table != "trial_intermediate_values" or num_objectives == 1)
    for table in theirs:
        assert ours[table] == theirs[table]
