"""Deadlines of a database connection: none may block its thread for ever.

The server ends a statement, a wait for a lock and an idle transaction that take too long. The kernel ends a connection
whose other side is gone. For a server that is there and never answers, neither helps: `Lines.cut` closes its
connections from another thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL

CONNECT_S = 10
STATEMENT_S = 60
LOCK_S = 30

_POSTGRESQL = f"""
SELECT set_config(name, seconds, %s) FROM (VALUES
    ('statement_timeout', '{STATEMENT_S}s'),
    ('lock_timeout', '{LOCK_S}s'),
    ('idle_in_transaction_session_timeout', '{STATEMENT_S}s')
) AS deadlines (name, seconds) WHERE current_setting(name) = '0'"""
"""Used where neither the URL nor the server sets a deadline. Not in the startup packet: poolers refuse that
(https://www.pgbouncer.org/config.html#ignore_startup_parameters).
"""

_OF_BOTH = f"""SET SESSION
    innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, {LOCK_S}),
    wait_timeout = LEAST(@@wait_timeout, {STATEMENT_S})"""
_MARIADB = f"max_statement_time = IF(@@max_statement_time = 0, {STATEMENT_S}, @@max_statement_time)"
_MYSQL = f"max_execution_time = IF(@@max_execution_time = 0, {STATEMENT_S * 1000}, @@max_execution_time)"
"""`wait_timeout` ends an idle session, in a transaction or not; the pool makes another."""

_PREPARED_AT = 5
"""psycopg's own default: executions of a statement before it is prepared on the server."""


def connect_arguments(url: URL) -> dict[str, Any]:
    match url.get_backend_name():
        case "postgresql":
            keepalives = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
            line = {"connect_timeout": CONNECT_S, **keepalives, "tcp_user_timeout": STATEMENT_S * 1000}
            return {**line, "prepare_threshold": None}  # until it is known that there is no pooler
        case "mysql":
            return {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S, "write_timeout": STATEMENT_S}
        case _:
            return {}


def set_deadlines(engine: Engine) -> None:
    """For every connection that the engine makes afterwards."""
    if engine.dialect.name == "sqlite":
        return  # SQLite only waits for its lock (busy timeout)
    engine.dispose()
    if engine.dialect.name == "mysql":
        event.listen(engine, "connect", _prepare_mysql)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
        event.listen(engine, "begin", _set_for_this_transaction)


def _prepare_mysql(connection: Any, _record: Any) -> None:
    own = _MARIADB if "MariaDB" in connection.get_server_info() else _MYSQL
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"{_OF_BOTH}, {own}")
    connection.commit()


def _prepare_postgresql(connection: Any, record: Any) -> None:
    """Settings and prepared statements belong to a session of the server. Behind a pooler that assigns connections per
    transaction, like pgbouncer, there is no such session: settings would reach other clients, and statements would be
    unknown.

    There is a session where the server's process id equals the one sent at the start: a pooler sends a number of its
    own.
    """
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    record.info[_IS_POOLED] = cursor.fetchone()[0] != connection.info.backend_pid
    if not record.info[_IS_POOLED]:
        cursor.execute(_POSTGRESQL, (False,))
        connection.prepare_threshold = _PREPARED_AT
    cursor.close()
    connection.commit()


def _set_for_this_transaction(connection: Connection) -> None:
    if connection.info.get(_IS_POOLED):
        connection.exec_driver_sql(_POSTGRESQL, (True,))


_IS_POOLED = "hpsearch is pooled"


class Lines:
    """The engine's connections, so that another thread can cut them.

    Including those in the pool: the pool tests one before it lends it (`pool_pre_ping`), and no event tells of that
    (SQLAlchemy 2.1, pool/base.py, `_ConnectionFairy._checkout`). A connection that is cut while idle is made again.
    """

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._known: WeakSet[Any] = WeakSet()
        if engine.dialect.name != "sqlite":
            event.listen(engine, "connect", self._made)
            engine.dispose()  # connections made before this are not tracked

    def _made(self, connection: Any, _record: Any) -> None:
        with self._lock:
            self._known.add(connection)

    def cut(self) -> None:
        """A thread that waits for an answer on one of them gets the error that the connection is lost."""
        with self._lock:
            connections = list(self._known)
        for connection in connections:
            with contextlib.suppress(Exception):  # it may be closing at this moment
                _shut(connection)


def _shut(connection: Any) -> None:
    """psycopg and PyMySQL keep their socket in different places; neither may be closed while its owner uses it."""
    if hasattr(connection, "pgconn"):
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)
    elif getattr(connection, "_sock", None) is not None:
        connection._sock.shutdown(socket.SHUT_RDWR)
