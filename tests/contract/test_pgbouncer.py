"""Through pgbouncer in transaction mode: settings, locks and prepared statements that belong to a session."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract_parts import claimed, created, opened, spec_of
from contract_servers import PgBouncer, PostgreSql
from sqlalchemy import text

from hpsearch.errors import InputError
from hpsearch.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.parametrize("backend", ["pgbouncer"], indirect=True)]

DEADLINES = {"statement_timeout": "1min", "lock_timeout": "30s", "idle_in_transaction_session_timeout": "1min"}


def test_each_transaction_has_its_deadlines_and_leaves_none_behind(
    store: Store, postgresql: PostgreSql, pgbouncer: PgBouncer
) -> None:
    del postgresql, pgbouncer
    with store.optuna.engine.begin() as connection:
        assert {name: connection.scalar(text(f"SHOW {name}")) for name in DEADLINES} == DEADLINES
    raw = store.optuna.engine.raw_connection()
    raw.autocommit = True
    assert raw.cursor().execute("SHOW statement_timeout").fetchone() == ("0",)
    raw.close()


def test_a_statement_may_be_executed_any_number_of_times(store: Store, store_url: str) -> None:
    """psycopg asks the server to remember it at the fifth; then pgbouncer 1.18 deals out a connection that doesn't."""
    search = created(store, spec_of())
    with opened(store_url) as other:
        for _ in range(8):
            for one in (store, other):
                one.optuna.get_all_trials(search.study_id)
    assert claimed(store, search.study_id).slot == 0


def test_settings_in_the_url_are_refused_in_words(store_url: str) -> None:
    with pytest.raises(InputError, match=r"leave it out of the URL.*ignore_startup_parameters"):
        opened(f"{store_url}?options=-c%20lock_timeout%3D5s")


@pytest.fixture
def narrow(postgresql: PostgreSql) -> Iterator[PgBouncer]:
    """A pooler with four connections to the server. With two nobody's tables are ever made: besides the lock's, Optuna
    takes two at the same time while it stamps its own (5.0.0, storages/_rdb/storage.py, `_init_alembic`)."""
    pooler = PgBouncer(postgresql, default_pool_size="4", query_wait_timeout="60")
    yield pooler
    pooler.close()


def test_24_workers_start_through_four_connections(narrow: PgBouncer, store_url: str) -> None:
    """A process that waits for the tables holds none."""
    url = narrow.url(narrow.create())

    def register(number: int) -> int:
        with opened(url) as store:
            study_id = created(store, spec_of(trials=24)).study_id
            store.workers.register(f"host:{number}:1.00", study_id, "cpu")
            return claimed(store, study_id, f"host:{number}:1.00").slot

    with ThreadPoolExecutor(24) as threads:
        assert sorted(threads.map(register, range(24))) == list(range(24))
    del store_url
