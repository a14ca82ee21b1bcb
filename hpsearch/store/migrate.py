"""Migrating our tables. Optuna migrates its own; the version of ours is in a separate table."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from filelock import FileLock
from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL

from hpsearch.errors import InputError, StoreUnreachable
from hpsearch.store.deadlines import set_deadlines
from hpsearch.store.engine import engine_options, reaching, shown
from hpsearch.store.network import refuse_network_file
from hpsearch.store.versions import OURS, TableVersion, version_of_optuna, version_of_ours

_LOCK_NUMBER = 0x68707365  # "hpse"
PATIENCE_S = 30


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(OURS))
    return config


def upgrade(engine: Engine) -> TableVersion:
    """Brings our tables up to date; returns the version that they had.

    Raises InputError where a newer hpsearch made them.
    """
    with engine.connect() as connection:
        found = version_of_ours(connection)
    if found.is_newest:
        return found
    if found.found is not None and not found.is_known:
        raise InputError(f"the store {found.mismatch}: {found.fix}")
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if found.found is None:
            _make_optuna_s_indexes(connection)
        command.upgrade(config, "head")
    return found


def _make_optuna_s_indexes(connection: Connection) -> None:
    """On MySQL, tables of a process that was killed remain without indexes, and Optuna makes no index for an existing
    table (SQLAlchemy 2.1, `MetaData.create_all`). One of the indexes keeps study names unique.
    """
    for table in BaseModel.metadata.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def refuse_another_optuna(engine: Engine) -> None:
    """Raises InputError where Optuna's own tables are of another Optuna version."""
    with engine.connect() as connection:
        found = version_of_optuna(connection)
    if found.mismatch:
        raise InputError(f"the store {found.mismatch}: {found.fix}")


@contextmanager
def exclusively(url: URL) -> Iterator[None]:
    """Only one process at a time creates or changes tables: workers of a new study start together.

    Raises:
        StoreUnreachable: another process took too long, or the database did not answer.
        InputError: an SQLite file can't be at the given path.
    """
    if url.get_backend_name() == "sqlite":
        with _locked(url):
            yield
        return
    with _connected(url) as engine, engine.connect() as connection:
        _take(connection, url)
        yield


_TAKE = {
    "postgresql": f"SELECT pg_try_advisory_xact_lock({_LOCK_NUMBER})",
    "mysql": "SELECT GET_LOCK(CONCAT('hpsearch ', MD5(DATABASE())), 0)",
}
_KEEP = {
    "postgresql": "SET LOCAL idle_in_transaction_session_timeout = 0",
    "mysql": "SET SESSION wait_timeout = 28800",
}
"""This connection is idle while tables are changed elsewhere."""


def _take(connection: Connection, url: URL) -> None:
    """The lock is released when the transaction, or MySQL's connection, ends, also when this process is killed.

    It polls: a process that waits in the server would occupy one of a pooler's connections, and the holder needs a
    second one.
    """
    backend, deadline = url.get_backend_name(), time.monotonic() + PATIENCE_S
    while True:
        with reaching(url):
            if connection.scalar(text(_TAKE[backend])):
                connection.execute(text(_KEEP[backend]))
                return
            connection.rollback()
        if time.monotonic() > deadline:
            raise StoreUnreachable(f"the store {shown(url)} can't be reached: another process changes its tables")
        time.sleep(random.uniform(0.02, 0.2))


def _locked(url: URL) -> AbstractContextManager[object]:
    """A lock file beside the SQLite file; makes the folder where it is missing."""
    if url.database in (None, "", ":memory:"):
        return nullcontext()
    refuse_network_file(url)
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{file}.lock").acquire()
    except OSError as error:
        raise InputError(f"--store: {file} can't be made: {error.strerror}: {error.filename}") from error


@contextmanager
def _connected(url: URL) -> Iterator[Engine]:
    try:
        engine = create_engine(url, **engine_options(url))
        set_deadlines(engine)
    except ImportError as error:
        extra = "postgresql" if url.get_backend_name() == "postgresql" else "mysql"
        raise InputError(f"no driver for this store: pip install 'hpsearch[{extra}]'") from error
    try:
        with reaching(url):
            engine.connect().close()
        yield engine
    finally:
        engine.dispose()
