"""What is kept of every claim of a slot: who had it, from when until when, and how it ended."""

from __future__ import annotations

import pytest
from contract_parts import claimed, created, ended, opened, result_of, spec_of, taken_over
from sqlalchemy import text

from hpsearch.errors import LeaseLost
from hpsearch.store import Store
from hpsearch.store.attempts import Ending
from hpsearch.store.engine import database_now, parse_url
from hpsearch.store.versions import VERSION_TABLE
from hpsearch.trial import Outcome


def clock(store: Store) -> float:
    with store.optuna.engine.begin() as connection:
        return database_now(connection)


def test_each_claim_is_kept_with_its_worker_its_times_and_its_end(store: Store) -> None:
    search = created(store, spec_of(trials=9))
    before = clock(store)
    store.leases.release(claimed(store, search.study_id, "a:1:1"))
    store.leases.give_back(claimed(store, search.study_id, "b:1:1"))
    store.leases.give_back(claimed(store, search.study_id, "c:1:1"), Ending.SET_ASIDE)
    silent = claimed(store, search.study_id, "d:1:1")
    ended(search, taken_over(store, silent, "e:1:1"), result_of([1.0], Outcome.PRUNED))
    store.leases.close(claimed(store, search.study_id, "e:1:1"))
    running = claimed(store, search.study_id, "e:1:1")
    with pytest.raises(LeaseLost):
        store.leases.give_back(silent)
    found, now = store.leases.attempts(search.study_id)
    assert [(each.slot, each.trial, each.attempt, each.worker_id, each.ending) for each in found] == [
        (0, 0, 1, "a:1:1", "trainer died"),
        (0, 0, 2, "b:1:1", "stopped"),
        (0, 0, 3, "c:1:1", "device set aside"),
        (0, 0, 4, "d:1:1", None),
        (0, 0, 5, "e:1:1", "pruned"),
        (1, None, 1, "e:1:1", "ended by another program"),
        (running.slot, None, 1, "e:1:1", None),
    ]
    assert [each.ended_at is None for each in found] == [each.ending is None for each in found]
    times = [time for each in found for time in (each.began_at, each.ended_at) if time is not None]
    assert [before, *times, now] == sorted([before, *times, now])


def test_those_of_a_deleted_study_go_with_it(store: Store) -> None:
    search = created(store, spec_of())
    claimed(store, search.study_id)
    store.optuna.delete_study(search.study_id)
    store.studies.forget_deleted()
    with store.optuna.engine.begin() as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM hpsearch_attempts")) == 0


def test_a_store_from_before_they_were_kept_is_read_as_it_is(store_url: str) -> None:
    with opened(store_url) as store:
        study_id = created(store, spec_of()).study_id
        with store.optuna.engine.begin() as connection:
            connection.execute(text("DROP TABLE hpsearch_attempts"))
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0003'"))
    with Store(parse_url(store_url, from_argv=False), only_to_read=True) as older:
        assert [study.name for study in older.studies.all()] == ["demo"]
        assert older.leases.attempts(study_id)[0] == []
    with opened(store_url) as store:
        assert claimed(store, study_id).attempt == 1
