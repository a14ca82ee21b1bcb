"""Opening a store for reading only: nothing is created or changed, and no lock is waited for.

SQLite is opened with `mode=ro` and plain transactions, so reading works beside a writer. In WAL mode SQLite still
needs the `-wal` and `-shm` files: it creates them if it may write to the folder; if it may not and nobody has the
store open, they aren't needed (https://www.sqlite.org/wal.html#read_only_databases).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL

from hpsearch.errors import InputError, NoStoreYet
from hpsearch.store.deadlines import set_deadlines
from hpsearch.store.engine import BUSY_TIMEOUT_S, engine_options, located, named, speaking_to
from hpsearch.store.network import refuse_network_file
from hpsearch.store.trials import QuickStorage
from hpsearch.store.versions import VERSION_TABLE, version_of_optuna, version_of_ours


def open_to_read(url: URL) -> QuickStorage:
    """Optuna's storage on a read-only engine.

    Raises:
        StoreUnreachable: it did not answer.
        NoStoreYet: there is none, or it has none of our tables.
        InputError: its tables are too old or newer than this hpsearch, or its driver is missing.
    """
    options = _options(url)
    with reading(url) as engine, engine.connect() as connection:
        for version in (version_of_ours(connection), version_of_optuna(connection)):
            if version.mismatch and not version.is_readable:
                raise InputError(f"the store {named(url)} {version.mismatch}: {version.fix}")
    with speaking_to(url):
        storage = QuickStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=options,
            skip_table_creation=True,
            skip_compatibility_check=True,
        )
    storage.engine.dispose()
    set_deadlines(storage.engine)
    _only_read(storage.engine)
    return storage


def are_newest(url: URL) -> bool:
    """Whether all tables are up to date: then workers that start together need not wait for each other.

    Not checked for SQLite, whose lock is a file beside it and whose transactions run one after the other anyway.
    """
    if url.get_backend_name() == "sqlite":
        return False
    try:
        with reading(url) as engine, engine.connect() as connection:
            return version_of_ours(connection).is_newest and version_of_optuna(connection).is_newest
    except NoStoreYet:
        return False


@contextmanager
def reading(url: URL) -> Iterator[Engine]:
    """A read-only engine on a store that has all tables, of any version.

    Raises as `open_to_read` does.
    """
    options = _options(url)
    with speaking_to(url):
        engine = create_engine(url, **options)
        _only_read(engine)
        try:
            with engine.connect() as connection:
                if not set(inspect(connection).get_table_names()) >= _TABLES:
                    raise nothing_yet(url)
            yield engine
        finally:
            engine.dispose()


_TABLES = {VERSION_TABLE, "hpsearch_studies", "version_info", "alembic_version"}
"""Without these Optuna's storage would write when it is opened."""


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() != "sqlite":
        return engine_options(url)
    refuse_network_file(url)
    return {"creator": _opener(url)}


def _opener(url: URL) -> Callable[[], sqlite3.Connection]:
    file = Path(str(url.database)).absolute()
    if not file.exists():
        nearest = next(parent for parent in file.parents if parent.exists())
        if not nearest.is_dir():
            raise InputError(f"--store: {file} can't be created: {nearest} is not a folder")
        raise nothing_yet(url)

    def is_nobody_s() -> bool:
        return not _may_write(file.parent) and not file.with_name(f"{file.name}-wal").exists()

    def connect() -> sqlite3.Connection:
        how = "immutable=1" if is_nobody_s() else "mode=ro"
        connection = sqlite3.connect(
            f"{file.as_uri()}?{how}", uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
        )
        connection.execute("PRAGMA query_only=ON")
        return connection

    return connect


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _only_read(engine: Engine) -> None:
    """A transaction sees one snapshot of the database, and can't write."""
    begin = "BEGIN" if engine.dialect.name == "sqlite" else "SET TRANSACTION READ ONLY"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def nothing_yet(url: URL) -> NoStoreYet:
    return NoStoreYet(f"{located(url)} has no studies yet: hpsearch run STUDY_FILE makes one")
