"""What only MySQL and MariaDB do: their clock, their way to compare text, their errors, their deadlines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pymysql
import pytest
from contract_parts import claimed, created, impatient, opened, spec_of
from contract_servers import MariaDb
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from hpsearch.errors import InputError, StoreUnreachable
from hpsearch.store import Store
from hpsearch.store.deadlines import Lines
from hpsearch.store.engine import database_now

pytestmark = [pytest.mark.cluster, pytest.mark.parametrize("backend", ["mariadb"], indirect=True)]

AN_AUTUMN_NIGHT = 1792891800
"""25 October 2026, 02:30 in Berlin, where the server's clock is, for the second time that night."""


@pytest.mark.parametrize("moment", [AN_AUTUMN_NIGHT - 3600, AN_AUTUMN_NIGHT, AN_AUTUMN_NIGHT + 3600])
def test_the_clock_goes_on_through_the_night_in_which_local_time_goes_back(moment: int, store: Store) -> None:
    with store.optuna.engine.connect() as connection:
        connection.execute(text(f"SET timestamp = {moment + 0.25}"))
        assert database_now(connection) == moment + 0.25
        connection.execute(text("SET timestamp = DEFAULT"))


def test_names_that_differ_in_case_accents_or_script_are_different(store: Store) -> None:
    names = ["demo", "Demo", "démo", "демо", "デモ"]
    for name in names:
        store.optuna.set_study_user_attr(created(store, spec_of()).study_id, name, name)
    attributes = store.optuna.get_study_user_attrs(created(store, spec_of()).study_id)
    assert {name: attributes.get(name) for name in names} == {name: name for name in names}


def test_a_database_that_may_not_be_changed_names_what_to_do(empty_url: str, mariadb: MariaDb, store: Store) -> None:
    name = empty_url.rpartition("/")[2]
    mariadb.execute(
        "CREATE OR REPLACE USER poor@'127.0.0.1' IDENTIFIED BY 's3cret'",
        f"GRANT SELECT, CREATE ON {name}.* TO poor@'127.0.0.1'",
    )
    with pytest.raises(InputError, match=f"ALTER DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"):
        opened(empty_url.replace("hpsearch:", "poor:"))
    del store


def test_a_mistake_is_no_outage(store: Store) -> None:
    """Both are an OperationalError for PyMySQL; a worker would wait an hour for a column that is not there."""

    def ask() -> None:
        with store.reaching(), store.optuna.engine.begin() as connection:
            connection.execute(text("SELECT nothing FROM trials"))

    with pytest.raises(OperationalError, match="1054"):
        ask()


def test_a_deadlock_and_a_lock_that_is_held_are_outages(store: Store, store_url: str) -> None:
    study_id = created(store, spec_of()).study_id
    with store.optuna.engine.begin() as holder:
        holder.execute(text("SELECT * FROM hpsearch_studies FOR UPDATE"))
        with (
            impatient(store_url) as other,
            pytest.raises(StoreUnreachable, match=r"can't be reached: Lock wait timeout exceeded"),
            other.reaching(),
        ):
            other.leases.claim(study_id, "host:1:1.00", 600)
    with pytest.raises(StoreUnreachable, match="Deadlock found"), store.reaching():
        deadlocked(store)
    assert claimed(store, study_id).slot == 0


def deadlocked(store: Store) -> None:
    """Two transactions that each want the row of the other one: MariaDB ends one of them."""
    engine, both = store.optuna.engine, threading.Barrier(2)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO hpsearch_alembic_version VALUES ('a'), ('b')"))
    failed: list[BaseException] = []

    def take(first: str, second: str) -> None:
        try:
            with engine.begin() as connection:
                for name in (first, second):
                    connection.execute(
                        text("SELECT * FROM hpsearch_alembic_version WHERE version_num = :n FOR UPDATE"), {"n": name}
                    )
                    if name == first:
                        both.wait(30)
        except OperationalError as error:
            failed.append(error)

    threads = [threading.Thread(target=take, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    raise failed[0]


def test_every_connection_has_its_deadlines_and_what_a_person_has_set_stays(store: Store, store_url: str) -> None:
    asked = "SELECT CONCAT_WS(' ', @@innodb_lock_wait_timeout, @@wait_timeout, ROUND(@@max_statement_time))"
    for url, expected in (
        (store_url, "30 60 60"),
        (f"{store_url}?init_command=SET+SESSION+innodb_lock_wait_timeout%3D5%2C+max_statement_time%3D7", "5 60 7"),
    ):
        with opened(url) as other, other.optuna.engine.begin() as first, other.optuna.engine.begin() as second:
            assert [connection.scalar(text(asked)) for connection in (first, second)] == [expected] * 2
    del store


@pytest.mark.parametrize(
    ("setting", "statement", "words"),
    [
        ("SET SESSION max_statement_time = 0.05", "SELECT SLEEP(30)", "max_statement_time exceeded"),
        ("SET SESSION wait_timeout = 1", "", "Lost connection|gone away"),
    ],
    ids=["a statement that takes too long", "a process that was paused in a transaction"],
)
def test_what_lasts_too_long_is_an_outage(setting: str, statement: str, words: str, store: Store) -> None:
    def wait() -> None:
        with store.reaching(), store.optuna.engine.begin() as connection:
            connection.execute(text(setting))
            if not statement:
                until_closed(connection.connection.dbapi_connection)
            connection.execute(text(statement or "SELECT 1"))

    with pytest.raises(StoreUnreachable, match=words):
        wait()
    assert store.studies.all() == []


def until_closed(connection: pymysql.connections.Connection) -> None:
    """Until the server has sent its last word."""
    connection._sock.settimeout(30)
    assert connection._rfile.peek(1) is not None


def test_a_line_to_a_server_that_hangs_is_cut(store: Store, mariadb: MariaDb) -> None:
    lines, stopped, found = Lines(store.optuna.engine), threading.Event(), []

    def ask() -> None:
        try:
            with store.reaching(), store.optuna.engine.begin() as connection:
                mariadb.process.send_signal(signal.SIGSTOP)
                stopped.set()
                while True:  # the server may answer once more before the signal reaches it
                    connection.execute(text("SELECT 1"))
        except StoreUnreachable as error:
            found.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        assert stopped.wait(30)
        until(lambda: (lines.cut(), thread.join(0.05), not thread.is_alive())[-1])
    finally:
        mariadb.process.send_signal(signal.SIGCONT)
    assert "can't be reached" in found[0]
    assert store.studies.all() == []


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
    raise AssertionError("it never came to that")
