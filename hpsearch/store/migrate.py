"""Bringing our tables up to date. Optuna looks after its own; our versions are in a table of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from filelock import FileLock
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from hpsearch.errors import InputError
from hpsearch.store.deadlines import connect_arguments, set_deadlines
from hpsearch.store.engine import reaching
from hpsearch.store.network import refuse_network_file
from hpsearch.store.versions import OURS, TableVersion, version_of_optuna, version_of_ours

_LOCK_NUMBER = 0x68707365  # "hpse"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(OURS))
    return config


def upgrade(engine: Engine) -> TableVersion:
    """Brings our tables up to date; the version that they had.

    Raises InputError where they were made by a newer hpsearch."""
    with engine.connect() as connection:
        found = version_of_ours(connection)
    if found.is_newest:
        return found
    if found.found is not None and not found.is_known:
        raise InputError(f"the store {found.mismatch}: {found.mend}")
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return found


def refuse_another_optuna(engine: Engine) -> None:
    """Raises InputError where Optuna's own tables are not of this Optuna's version."""
    with engine.connect() as connection:
        found = version_of_optuna(connection)
    if found.mismatch:
        raise InputError(f"the store {found.mismatch}: {found.mend}")


@contextmanager
def exclusively(url: URL) -> Iterator[None]:
    """Only one process at a time makes or changes tables: workers of a new study start together.

    Raises:
        StoreUnreachable: another one took too long, or the database did not answer.
        InputError: an SQLite file can't be where it was said.
    """
    if url.get_backend_name() == "sqlite":
        with _locked(url):
            yield
        return
    take, give = {
        "postgresql": (
            f"SELECT pg_advisory_lock({_LOCK_NUMBER})",
            f"SELECT pg_advisory_unlock({_LOCK_NUMBER})",
        ),
        "mysql": (f"SELECT GET_LOCK('{_LOCK_NUMBER}', 60)", f"SELECT RELEASE_LOCK('{_LOCK_NUMBER}')"),
    }[url.get_backend_name()]
    with _connected(url) as engine, engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # an idle transaction is ended
        with reaching(url):  # a wait that lasts too long is ended, too
            connection.execute(text(take))
        yield
        with reaching(url):
            connection.execute(text(give))


def _locked(url: URL) -> AbstractContextManager[object]:
    """A lock beside the SQLite file; the folder is made where it is missing."""
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
        engine = create_engine(url, connect_args=connect_arguments(url))
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
