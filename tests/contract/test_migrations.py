"""A store of an older hpsearch: its tables are brought up to date, and its studies continue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from contract_parts import claimed, ended, opened, result_of, spec_of, worked
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Engine, text

from hpsearch.search import Search
from hpsearch.store import Handover, Store, specs
from hpsearch.store.engine import open_optuna_storage, parse_url
from hpsearch.store.leases import Slots
from hpsearch.store.migrate import _config

FIRST = "0001"


def to_first_tables(engine: Engine) -> None:
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)


def insert(engine: Engine, table: str, **values: Any) -> None:
    with engine.begin() as connection:
        names = ", ".join(values)
        holes = ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({holes})"), values)


@pytest.fixture
def old(empty_url: str) -> str:
    """A database of the first version: a study of four trials, one finished, one that its worker held when it died."""
    spec = spec_of(trials=4)
    storage = open_optuna_storage(parse_url(empty_url, from_argv=False))
    engine = storage.engine
    to_first_tables(engine)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "demo")
    whole = {"study_id": study_id, "name": "demo", "spec": specs.to_text(spec), "manifest": b"m", "trials": 4}
    insert(engine, "hpsearch_studies", **whole, folder="/here", created_at=7.0)
    lease = {"study_id": study_id, "deaths": 0}
    insert(engine, "hpsearch_leases", **lease, slot=0, worker_id="a:1:1", attempt=1, expires_at=1.0, finished=False)
    insert(engine, "hpsearch_leases", **lease, slot=1, worker_id="a:1:1", attempt=3, expires_at=1.0, finished=False)
    worker = {"worker_id": "a:1:1", "study_id": study_id, "device": "cpu", "activity": '{"doing": "training"}'}
    insert(engine, "hpsearch_workers", **worker, started_at=1.0, beat_at=2.0, gone=False)
    storage.remove_session()
    engine.dispose()
    return empty_url


@pytest.fixture
def migrated(old: str) -> Iterator[Store]:
    with opened(old) as store:
        yield store


def test_rows_are_kept_and_studies_have_an_id_of_their_own(migrated: Store, old: str) -> None:
    study = migrated.studies.find("demo")
    assert study is not None
    assert (study.manifest, study.trials, study.folder, study.created_at) == (b"m", 4, Path("/here"), 7.0)
    assert study.spec == spec_of(trials=4)
    assert study.paused is None
    assert study.uid.startswith("demo-")
    assert migrated.leases.slots(study.study_id) == Slots(wanted=4, finished=0, leased=2)
    (worker,) = migrated.workers.of(study.study_id)
    assert (worker.activity.doing, worker.aside, worker.device_uuid) == ("training", None, None)
    with opened(old) as again:  # and only once
        same = again.studies.find("demo")
        assert same is not None
        assert same.uid == study.uid


def test_a_worker_continues_its_trials(migrated: Store) -> None:
    search = Search(migrated, spec_of(trials=4))
    new = claimed(migrated, search.study_id)
    assert new.slot == 2, "its workers have time to show that they live"
    migrated.leases.release(new)
    with migrated.optuna.engine.begin() as connection:
        connection.execute(text("UPDATE hpsearch_studies SET grace_until = 0"))
    lease = claimed(migrated, search.study_id)
    assert (lease.slot, lease.attempt, lease.handover) == (0, 2, Handover.EXPIRED)
    assert (lease.strikes, lease.progress, lease.stumbles, lease.reasons) == (0, 0, 0, ())
    ended(search, lease, result_of([1.0]))
    worked(migrated, search)
    states = [trial.state for trial in migrated.optuna.get_all_trials(search.study_id)]
    assert states == [TrialState.COMPLETE] * 4
    assert migrated.leases.slots(search.study_id) == Slots(wanted=4, finished=4, leased=0)
    assert migrated.orders.failures_forgiven(search.study_id) == 0
    assert not migrated.orders.of("a:1:1").stop


def test_an_id_of_a_deleted_lease_is_never_given_out_again(migrated: Store) -> None:
    """Its worker may still be there, and believe that it holds the lease."""
    with migrated.optuna.engine.begin() as connection:
        highest = connection.scalar(text("SELECT MAX(lease_id) FROM hpsearch_leases"))
        connection.execute(text("DELETE FROM hpsearch_leases"))
    study = migrated.studies.find("demo")
    assert study is not None
    assert claimed(migrated, study.study_id).lease_id > highest


def test_the_tables_are_those_that_the_code_knows(migrated: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from hpsearch.store.tables import metadata

    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or (str(name).startswith("hpsearch_") and name != "hpsearch_alembic_version")

    with migrated.optuna.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        found = [change for change in compare_metadata(context, metadata) if not isinstance(change, list)]
    assert found == []
