"""A dashboard on a small study, served in the ways it can be: to all, with a token, open to changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.watch.door.login import Attempts, Login
from tests.unit.door_fixtures import TOKEN, Served, fill, nobody, serving
from tests.unit.worker_fixtures import Clock


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    folder = tmp_path_factory.mktemp("door")
    with Store(parse_url(f"sqlite:///{folder / 'hpsearch.db'}", from_argv=False)) as store:
        fill(store.optuna, folder / "artifacts")
        yield store, folder


@pytest.fixture(scope="module")
def shown(filled: tuple[Store, Path]) -> Iterator[Served]:
    """On loopback, as it is by default: no token, and it only shows."""
    with serving(*filled, nobody, hosts=["dash.lab", "tunnel:9000"]) as served:
        yield served


@pytest.fixture(scope="module")
def clock() -> Clock:
    """That of `locked`, by which wrong tokens wait."""
    return Clock()


@pytest.fixture(scope="module")
def locked(filled: tuple[Store, Path], clock: Clock) -> Iterator[Served]:
    """With a token."""
    with serving(*filled, lambda port: Login(TOKEN, port, Attempts(clock))) as served:
        yield served


@pytest.fixture(scope="module")
def open_to_changes(filled: tuple[Store, Path]) -> Iterator[Served]:
    """With --allow-changes, without a token."""
    with serving(*filled, nobody, allow_changes=True) as served:
        yield served
