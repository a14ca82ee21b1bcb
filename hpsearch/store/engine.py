"""The database connection: how SQLite, PostgreSQL and MySQL are set up so that workers don't block each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy import Connection, Engine, event, func, literal_column, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hpsearch.errors import InputError, StoreUnreachable
from hpsearch.store import mysql
from hpsearch.store.deadlines import connect_arguments, set_deadlines
from hpsearch.store.trials import QuickStorage

RESCUE = "stop all workers and go back to the last backup, or rescue what can be read with: sqlite3 FILE .recover"
"""What to do with a damaged SQLite file."""
BUSY_TIMEOUT_S = 60


def parse_url(url: str, *, from_argv: bool) -> URL:
    """Parses a database URL.

    Raises:
        InputError: not a URL, or one with a password on a command line, where every user of the machine sees it.
    """
    scheme, _, rest = url.partition(":")
    if scheme.startswith("grpc"):
        raise InputError(_PROXY)
    address = "" if scheme.startswith("sqlite") else rest.partition("?")[0]
    login = address.rpartition("@")[0]
    if from_argv and ":" in login:
        raise InputError(_PASSWORD_IN_ARGV)
    if "@" in login:
        raise InputError("--store: more than one @ before the host: write %40 for an @ in a name or a password")
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in _BACKENDS or parsed.get_dialect().is_async:
            raise NoSuchModuleError
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise InputError(
            f"--store: expected sqlite:///FILE, postgresql+psycopg://USER@HOST/NAME or mysql+pymysql://USER@HOST/NAME; "
            f"it starts with {scheme[:30]!r}"
        ) from None
    if from_argv and _has_password(parsed):
        raise InputError(_PASSWORD_IN_ARGV)
    return parsed


def _has_password(url: URL) -> bool:
    return url.password is not None or any(key.endswith(_SECRETS) for key in url.query)


def holds_secret(url: str) -> bool:
    """Whether the URL may contain a password. One that can't be parsed may."""
    try:
        return bool(url) and _has_password(parse_url(url, from_argv=False))
    except InputError:
        return True


_PROXY = (
    "--store: workers write through no gRPC storage proxy: with it a write and the check that the trial is still "
    "theirs are two things, and between them another worker may have taken over. Give the database's own URL; where "
    "it has too few connections, put pgbouncer before it (docs/how-to/databases.md). The proxy may stand beside, for "
    "stock Optuna"
)
_BACKENDS = ("sqlite", "postgresql", "mysql")
_SECRETS = ("password", "passwd")  # also sslpassword, ssl_key_password, …
_PASSWORD_IN_ARGV = (
    "--store: a password on the command line can be read by every user of this machine. "
    "Leave it out of the URL and put it into ~/.pgpass (PostgreSQL), "
    "or give the whole URL in the environment variable HPSEARCH_STORE"
)


def shown(url: URL) -> str:
    """The URL for people and logs: never with a password."""
    return url.set(password="", query={}).render_as_string(hide_password=False).replace(":@", "@")


def named(url: URL) -> str:
    """For people: without secrets, and with a file's path relative to the working directory where that is shorter."""
    return shown(url).replace(f"sqlite:///{Path.cwd()}/", "sqlite:///")


def located(url: URL) -> str:
    """For people who look for what is not there: without secrets, and a file with its whole path."""
    is_file = url.get_backend_name() == "sqlite" and url.database
    return shown(url.set(database=str(Path(str(url.database)).absolute())) if is_file else url)


def open_optuna_storage(url: URL) -> QuickStorage:
    """Optuna's storage on an engine with our settings; makes its tables where they are missing.

    Any version of the tables is accepted: Optuna's own check leaves its connection open when it raises.

    Raises:
        StoreUnreachable: the database did not answer.
        InputError: the database's driver is not installed, or the file is no database.
    """
    options = engine_options(url)
    with speaking_to(url):
        if url.get_backend_name() == "mysql":
            mysql.compare_exactly(url, options)
        storage = QuickStorage(
            url.render_as_string(hide_password=False), engine_kwargs=options, skip_compatibility_check=True
        )
    if url.get_backend_name() == "sqlite":
        _make_sqlite_safe(storage.engine)
    set_deadlines(storage.engine)
    return storage


@contextmanager
def speaking_to(url: URL) -> Iterator[None]:
    """Wraps the first contact with a database: explains errors of the database or of this installation.

    Raises:
        StoreUnreachable: the database did not answer.
        InputError: the database's driver is not installed, or the file is no database.
    """
    with reaching(url):
        try:
            yield
        except ImportError as error:
            extra = "postgresql" if url.get_backend_name() == "postgresql" else "mysql"
            raise InputError(f"no driver for {shown(url)}: pip install 'hpsearch[{extra}]'") from error
        except DatabaseError as error:
            if type(error) is not DatabaseError:  # its subclasses mean something else
                raise
            if "malformed" in str(error.orig):
                raise InputError(f"{shown(url)} is damaged ({error.orig}): {RESCUE}") from error
            raise InputError(f"--store: {shown(url)} is no database: {error.orig}") from error


def engine_options(url: URL) -> dict[str, Any]:
    match url.get_backend_name():
        case "sqlite":
            return {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
        case backend:
            lasting = {"pool_pre_ping": True, "pool_recycle": 300, "connect_args": connect_arguments(url)}
            # MySQL's default level locks the rows and gaps that a search passes over, until the transaction ends.
            return lasting | ({"isolation_level": "READ COMMITTED"} if backend == "mysql" else {})


def _make_sqlite_safe(engine: Engine) -> None:
    """Makes every transaction take SQLite's write lock when it begins.

    Optuna and hpsearch rely on SELECT … FOR UPDATE, which SQLite ignores: in a test eight processes claimed 49 of 200
    waiting trials twice. BEGIN IMMEDIATE gives the same exclusion for the whole transaction. Recipe:
    https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl

    Nothing in a process with such an engine may open the file itself, not even to read it: closing it drops the locks
    of this process. The next process that leaves then takes itself for the last one and deletes the write-ahead log,
    and what is written here afterwards is lost (a new connection says "disk I/O error"):
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we emit BEGIN ourselves
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def reaching(url: URL) -> Iterator[None]:
    """Turns the many errors of a database that can't be reached into one error with a message."""
    try:
        yield
    except (StorageInternalError, DBAPIError, PoolTimeout) as error:
        cause = _root(error)
        # An InternalError that ends the connection: PostgreSQL aborted a transaction in which this process was paused.
        is_lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
        if not is_lost and not _is_outage(cause, url):
            raise
        words = _words(cause)
        if "unsupported startup parameter" in words:
            raise InputError(f"--store: {shown(url)}: {words}; {_STARTUP}") from error
        raise StoreUnreachable(f"the store {shown(url)} can't be reached: {words}") from error


_STARTUP = (
    "a pooler takes no such setting: leave it out of the URL and out of PGOPTIONS, "
    "or have the pooler overlook it (of pgbouncer: ignore_startup_parameters)"
)


def _is_outage(cause: BaseException, url: URL) -> bool:
    if isinstance(cause, OperationalError) and url.get_backend_name() == "mysql":
        return mysql.is_outage(cause.orig)
    return isinstance(cause, OperationalError | InterfaceError | PoolTimeout)


def _words(cause: BaseException) -> str:
    """One line. PyMySQL's errors are a number and a text."""
    original = getattr(cause, "orig", None) or cause
    lines = str(original.args[1] if len(original.args) == 2 else original).strip().splitlines()
    return lines[0] if lines else str(cause)


def _root(error: BaseException) -> BaseException:
    """The original error that Optuna wrapped."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def database_now(connection: Connection) -> float:
    """Seconds since 1970 by the database's clock: leases are compared by one clock only."""
    return float(connection.execute(select(now_by(connection))).scalar_one())


def now_by(connection: Connection) -> Any:
    """That moment as an expression, for a statement that need not know it."""
    expressions: dict[str, Callable[[], Any]] = {
        "sqlite": lambda: literal_column("(julianday('now') - 2440587.5) * 86400.0"),
        "postgresql": lambda: func.extract("epoch", func.clock_timestamp()),
        # Not UNIX_TIMESTAMP(NOW(6)): in autumn, local time has one hour twice.
        "mysql": lambda: literal_column("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6"),
    }
    return expressions[connection.dialect.name]()
