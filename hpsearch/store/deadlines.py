"""Deadlines of a database connection: none may hold up its thread for ever.

The server ends a statement, a wait for a lock and an idle transaction that last too long. The kernel ends a connection
whose other side is gone. A server that is there and never answers is neither: `Lines.cut` closes its connections from
another thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

CONNECT_S = 10
STATEMENT_S = 60
LOCK_S = 30

_SERVER_SETTINGS = {
    "statement_timeout": f"{STATEMENT_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_S}s",
}
"""Of PostgreSQL, where neither the URL nor the server says otherwise. Not in the startup packet: poolers refuse that
(https://www.pgbouncer.org/config.html#ignore_startup_parameters)."""


def connect_arguments(url: URL) -> dict[str, Any]:
    match url.get_backend_name():
        case "postgresql":
            keepalives = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
            return {"connect_timeout": CONNECT_S, **keepalives, "tcp_user_timeout": STATEMENT_S * 1000}
        case "mysql":
            return {"connect_timeout": CONNECT_S, "read_timeout": STATEMENT_S, "write_timeout": STATEMENT_S}
        case _:
            return {}


def set_deadlines(engine: Engine) -> None:
    """For every connection that the engine makes from now on."""
    if engine.dialect.name == "sqlite":
        return  # its busy timeout is the only wait that it knows
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        if engine.dialect.name == "mysql":
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {LOCK_S}")
        else:
            for name, value in _SERVER_SETTINGS.items():
                unset = "current_setting(%s) = '0'"
                cursor.execute(f"SELECT set_config(%s, %s, false) WHERE {unset}", (name, value, name))
        cursor.close()
        connection.commit()


class Lines:
    """The engine's connections, so that another thread can cut them.

    Those in the pool, too: the pool tries one before it lends it (`pool_pre_ping`), and no event tells of that
    (SQLAlchemy 2.1, pool/base.py, `_ConnectionFairy._checkout`). One that is cut while nobody uses it is made anew.
    """

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._known: WeakSet[Any] = WeakSet()
        if engine.dialect.name != "sqlite":
            event.listen(engine, "connect", self._made)
            engine.dispose()  # what was made before is not known here

    def _made(self, connection: Any, _record: Any) -> None:
        with self._lock:
            self._known.add(connection)

    def cut(self) -> None:
        """Whoever waits for an answer on one of them is told that the connection is lost."""
        with self._lock:
            connections = list(self._known)
        for connection in connections:
            with contextlib.suppress(Exception):  # it may be closed this very moment
                _shut(connection)


def _shut(connection: Any) -> None:
    """psycopg and PyMySQL keep their socket in different places; neither may be closed under its owner's feet."""
    if hasattr(connection, "pgconn"):
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)
    elif getattr(connection, "_sock", None) is not None:
        connection._sock.shutdown(socket.SHUT_RDWR)
