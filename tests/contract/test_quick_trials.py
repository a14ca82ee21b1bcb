"""Reading trials quickly: the same as Optuna reads, however often, and finished ones once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from contract_parts import created, spec_of
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event, text

import hpsearch.store.trials as trials_module
from hpsearch.store import Store

ODD = 'q"uo\\te: {ключ}, 日本語\n'
SPACE = {
    "z": FloatDistribution(1e-9, 1.0, log=True),
    "a": CategoricalDistribution([None, True, "x", 0.1]),
    ODD: IntDistribution(1, 9),
}


@pytest.fixture
def study_id(store: Store) -> int:
    """Of a study with trials of every kind."""
    draw = random.Random(0)
    made = created(store, spec_of()).study_id
    for state in list(TrialState) * 3:
        store.optuna.create_new_trial(made, _trial(draw, state))
    store.optuna.create_new_trial(made)
    return made


def _trial(draw: random.Random, state: TrialState) -> FrozenTrial:
    params = {"z": draw.uniform(0.1, 1.0) / 3, "a": draw.choice([None, True, "x", 0.1]), ODD: draw.randint(1, 9)}
    reports = {1: draw.random() / 3, 2: math.inf, 3: -math.inf, 7: math.nan}
    facts: dict[str, Any] = {ODD: ODD, "nan": math.inf, "nested": {"list": [1, None, ODD]}, "none": None, "": 1e-17}
    value = draw.choice([0.1, math.inf, -math.inf]) if state is TrialState.COMPLETE else None
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=SPACE,
        user_attrs=facts,
        system_attrs={"hpsearch:slot": 3, ODD: [ODD]},
        intermediate_values=reports,
    )


@pytest.fixture
def stock(store_url: str, backend: str) -> Iterator[RDBStorage]:
    unprepared = {"connect_args": {"prepare_threshold": None}} if backend == "pgbouncer" else {}
    storage = RDBStorage(store_url, engine_kwargs=unprepared)
    yield storage
    storage.engine.dispose()


def told(trials: list[FrozenTrial]) -> list[str]:
    """NaN is not equal to itself; and the order of the attributes doesn't matter."""
    for trial in trials:
        trial._user_attrs = dict(sorted(trial._user_attrs.items()))
        trial._system_attrs = dict(sorted(trial._system_attrs.items()))
        trial.intermediate_values = dict(sorted(trial.intermediate_values.items()))
    return [repr(trial) for trial in trials]


PARTS = [
    (states, included, greater_than)
    for states in (None, (TrialState.COMPLETE,), (TrialState.WAITING, TrialState.FAIL), ())
    for included, greater_than in ((set[int](), -1), ({1, 2, 9, 999}, 5), (set[int](), 12))
]


def test_every_part_is_read_as_optuna_reads_it(
    store: Store, stock: RDBStorage, study_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for states, included, greater_than in PARTS:
        expected = told(stock._get_trials(study_id, states, included, greater_than))
        assert len(expected) == 16 or states is not None or greater_than > 0
        for many in (0, 300):  # by the whole study, and by ids
            monkeypatch.setattr(trials_module, "_MANY", many)
            store.optuna._finished.clear()
            for _ in range(2):
                assert told(store.optuna._get_trials(study_id, states, included, greater_than)) == expected


def test_a_study_that_is_not_there_is_a_key_error(store: Store, stock: RDBStorage, study_id: int) -> None:
    for storage in (store.optuna, stock):
        with pytest.raises(KeyError, match=r"Record does not exist\."):
            storage.get_all_trials(study_id + 1)
    other = stock.create_new_study([optuna.study.StudyDirection.MINIMIZE], "empty")
    assert store.optuna.get_all_trials(other) == []


def params_read(storage: RDBStorage, look: Callable[[], object]) -> int:
    """How many rows of parameters a look fetches."""
    statements = []

    def count(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append("FROM trial_params" in statement.replace("\n", " ").replace("  ", " "))

    event.listen(storage.engine, "before_cursor_execute", count)
    look()
    event.remove(storage.engine, "before_cursor_execute", count)
    return sum(statements)


def test_finished_trials_are_read_once(store: Store, stock: RDBStorage) -> None:
    """When stock Optuna does so, too, `QuickStorage` may go."""
    made = created(store, spec_of()).study_id
    for _ in range(3):
        trial = create_trial(state=TrialState.PRUNED)
        trial.datetime_complete = datetime.now() - timedelta(minutes=1)  # MySQL's ends are not remembered at once
        store.optuna.create_new_trial(made, trial)
    quick = [params_read(store.optuna, lambda: store.optuna.get_all_trials(made)) for _ in range(2)]
    optuna_s = [params_read(stock, lambda: stock.get_all_trials(made)) for _ in range(2)]
    assert (quick, optuna_s) == ([1, 0], [1, 1])


def test_a_trial_that_is_opened_again_is_read_again(store: Store, stock: RDBStorage) -> None:
    made = created(store, spec_of()).study_id
    trial_id = store.optuna.create_new_trial(made, create_trial(state=TrialState.FAIL, user_attrs={"reason": "dead"}))
    assert store.optuna.get_all_trials(made)[0].user_attrs == {"reason": "dead"}
    with store.optuna.engine.begin() as connection:
        for statement in (
            "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL",
            "DELETE FROM trial_user_attributes",
        ):
            connection.execute(text(statement))
    (opened,) = store.optuna.get_all_trials(made)
    assert (opened.state, opened.user_attrs) == (TrialState.RUNNING, {})
    stock.set_trial_user_attr(trial_id, "reason", "again")
    stock.set_trial_state_values(trial_id, TrialState.FAIL)
    assert store.optuna.get_all_trials(made)[0].user_attrs == {"reason": "again"}


def test_a_trial_that_was_opened_and_ended_between_two_looks_is_read_again(store: Store, stock: RDBStorage) -> None:
    made = created(store, spec_of()).study_id
    trial_id = store.optuna.create_new_trial(made, create_trial(state=TrialState.FAIL))
    store.optuna.get_all_trials(made)
    with store.optuna.engine.begin() as connection:
        connection.execute(text("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL"))
    stock.set_trial_user_attr(trial_id, "reason", "again")
    stock.set_trial_state_values(trial_id, TrialState.FAIL)
    assert store.optuna.get_all_trials(made)[0].user_attrs == {"reason": "again"}
