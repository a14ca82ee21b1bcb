"""Looking on: the dashboard's own connections read everything, and the database refuses what they would change."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from contract_parts import RATE, created, spec_of, worked
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from hpsearch.search import Search
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.reading import open_to_read


@pytest.fixture
def search(store: Store) -> Search:
    """A study whose two trials have ended."""
    search = created(store, spec_of(space=RATE, trials=2))
    assert len(worked(store, search)) == 2
    return search


@pytest.fixture
def looking_on(search: Search, store_url: str) -> Iterator[RDBStorage]:
    del search
    storage = open_to_read(parse_url(store_url, from_argv=False))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def test_everything_can_be_read(looking_on: RDBStorage, store: Store) -> None:
    (study,) = looking_on.get_all_studies()
    assert looking_on.get_all_trials(study._study_id) == store.optuna.get_all_trials(study._study_id)


def test_what_is_written_meanwhile_is_seen(looking_on: RDBStorage, store: Store, search: Search) -> None:
    assert "mine" not in looking_on.get_study_user_attrs(search.study_id)
    store.optuna.set_study_user_attr(search.study_id, "mine", 1)
    assert looking_on.get_study_user_attrs(search.study_id)["mine"] == 1


def test_nothing_can_be_written(looking_on: RDBStorage, store: Store, search: Search) -> None:
    trial = store.optuna.get_all_trials(search.study_id)[0]
    before = store.optuna.get_all_studies(), store.optuna.get_all_trials(search.study_id)
    for change in (
        lambda: looking_on.create_new_study([StudyDirection.MINIMIZE], "other"),
        lambda: looking_on.delete_study(search.study_id),
        lambda: looking_on.set_study_system_attr(search.study_id, "note", "mine"),
        lambda: looking_on.set_study_user_attr(search.study_id, "note", "mine"),
        lambda: looking_on.set_trial_user_attr(trial._trial_id, "note", "mine"),
    ):
        with pytest.raises((StorageInternalError, optuna.exceptions.UpdateFinishedTrialError)):
            change()
    assert (store.optuna.get_all_studies(), store.optuna.get_all_trials(search.study_id)) == before


def test_a_worker_that_writes_is_not_waited_for(looking_on: RDBStorage, store: Store, search: Search) -> None:
    """Nor does it wait: on SQLite the store's own transactions exclude each other from their beginning."""
    study_id = search.study_id
    with store.optuna.engine.begin():
        assert len(looking_on.get_all_trials(study_id)) == 2
    with looking_on.engine.begin() as reading:
        assert len(reading.exec_driver_sql("SELECT * FROM trials").fetchall()) == 2
        store.optuna.set_study_user_attr(study_id, "mine", 1)
