"""Deadlines on a real server: one that holds a lock, one that hangs, and one that ended a paused worker's session."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_parts import LEASE_S, claimed, created, opened, spec_of
from sqlalchemy import text

from hpsearch.errors import StoreUnreachable
from hpsearch.store import Store
from hpsearch.store.deadlines import Lines

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def one(store: Store, statement: str) -> Any:
    with store.optuna.engine.begin() as connection:
        return connection.scalar(text(statement))


def test_every_connection_has_its_deadlines(store: Store) -> None:
    with store.optuna.engine.begin() as first, store.optuna.engine.begin() as second:
        for connection in (first, second):
            found = {
                name: connection.scalar(text(f"SHOW {name}"))
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            }
            assert found == {
                "statement_timeout": "1min",
                "lock_timeout": "30s",
                "idle_in_transaction_session_timeout": "1min",
            }


def test_what_a_person_has_set_stays(store_url: str) -> None:
    with opened(f"{store_url}&options=-c%20lock_timeout%3D5s") as store:
        assert one(store, "SHOW lock_timeout") == "5s"
        assert one(store, "SHOW statement_timeout") == "1min"


def test_a_row_lock_that_is_held_is_a_store_out_of_reach(store: Store, store_url: str) -> None:
    study_id = created(store, spec_of()).study_id
    with opened(store_url) as other, other.optuna.engine.begin() as holder:
        holder.execute(text("SELECT * FROM hpsearch_studies FOR UPDATE"))
        with store.optuna.engine.begin() as connection:
            connection.execute(text("SET lock_timeout = '50ms'"))  # of the one connection that is in the pool
        with pytest.raises(StoreUnreachable, match="lock timeout"), store.reaching():
            store.leases.claim(study_id, "host:1:1.00", LEASE_S)
    assert claimed(store, study_id).slot == 0


def test_a_statement_that_takes_too_long_is_a_store_out_of_reach(store: Store) -> None:
    def sleep() -> None:
        with store.reaching(), store.optuna.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
            connection.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(StoreUnreachable, match="statement timeout"):
        sleep()


def test_a_transaction_that_was_paused_for_too_long_is_a_store_out_of_reach(store: Store) -> None:
    """The worker was stopped in the middle of it, and the server gave its locks to others."""

    def pause() -> None:
        with store.reaching(), store.optuna.engine.begin() as connection:
            process = Path(f"/proc/{connection.scalar(text('SELECT pg_backend_pid()'))}")
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '20ms'"))
            wait_until(lambda: not process.exists())
            connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnreachable, match="idle-in-transaction timeout"):
        pause()
    assert one(store, "SELECT 1") == 1


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Backend:
    """The server's process behind the store's one connection; stopped, it is a server that never answers."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)


@pytest.fixture
def hung(store: Store) -> Iterator[Backend]:
    store.close()
    backend = Backend(0)
    yield backend
    if backend.pid:
        os.kill(backend.pid, signal.SIGCONT)


@pytest.mark.parametrize("moment", ["in a transaction", "before one"])
def test_a_line_to_a_server_that_hangs_is_cut(store: Store, hung: Backend, moment: str) -> None:
    """Before a transaction the pool tries its connection, which has to be cut as well."""
    engine = store.optuna.engine
    lines = Lines(engine)
    asked, found = threading.Event(), []

    def ask() -> None:
        try:
            with store.reaching(), engine.begin() as connection:
                if moment == "in a transaction":
                    hung.stop()
                    asked.set()
                connection.execute(text("SELECT 1"))
                found.append("an answer")
        except StoreUnreachable as error:
            found.append(str(error))

    hung.pid = one(store, "SELECT pg_backend_pid()")
    if moment == "before one":
        hung.stop()
        asked.set()
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert asked.wait(10)
    deadline = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < deadline:  # the question may not be asked yet
        lines.cut()
        thread.join(0.05)
    assert not thread.is_alive(), "it waits for ever"
    assert "can't be reached" in found[0] if moment == "in a transaction" else found == ["an answer"]
    assert one(store, "SELECT 1") == 1
