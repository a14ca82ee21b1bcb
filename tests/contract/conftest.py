"""What the contract tests share: a database of every backend, fresh for each test, and the store on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract_parts import opened
from contract_servers import PgBouncer, PostgreSql

from hpsearch.store import Store

BACKENDS = (
    "sqlite",
    "postgresql",
    pytest.param("mariadb", marks=pytest.mark.cluster),
    pytest.param("pgbouncer", marks=pytest.mark.cluster),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a pooler can't change is not tried through one."""
    items[:] = [item for item in items if not (item.get_closest_marker("no_pooler") and "pgbouncer" in item.name)]


@pytest.fixture(scope="session")
def pgbouncer(postgresql: PostgreSql) -> Iterator[PgBouncer]:
    server = PgBouncer(postgresql)
    yield server
    server.close()


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
    server = request.getfixturevalue(backend)
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
    server = request.getfixturevalue(backend)
    name = server.create(server.template)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with opened(store_url) as store:
        yield store
