"""A process that is stopped in the middle of a transaction and wakes up later: the store was away, no more."""

from __future__ import annotations

import time

import psycopg
import pytest
from contract_parts import opened
from sqlalchemy import make_url, text

from hpsearch.errors import StoreUnreachable


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_transaction_that_the_server_ended_is_an_outage(store_url: str) -> None:
    url = make_url(store_url)
    with opened(store_url) as store:

        def stopped_in_a_transaction() -> None:
            with store.reaching(), store.optuna.engine.begin() as connection:
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
                pid = connection.scalar(text("SELECT pg_backend_pid()"))
                wait_until_gone(url.set(drivername="postgresql").render_as_string(hide_password=False), pid)
                connection.scalar(text("SELECT 1"))

        with pytest.raises(StoreUnreachable):
            stopped_in_a_transaction()
        assert store.studies.all() == []


def wait_until_gone(url: str, pid: int | None) -> None:
    deadline = time.monotonic() + 30
    with psycopg.connect(url, autocommit=True) as other:
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.01)
