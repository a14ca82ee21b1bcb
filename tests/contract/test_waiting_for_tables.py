"""Workers that start together wait for each other's changes to the tables, and not for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from contract_parts import opened

from hpsearch.errors import StoreUnreachable
from hpsearch.store import migrate
from hpsearch.store.engine import parse_url
from hpsearch.store.migrate import exclusively

SERVERS = ["postgresql", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("mariadb", "pgbouncer"))]


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
def test_one_that_takes_too_long_is_an_outage(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker outlives it, as it does any other: it tries again."""
    monkeypatch.setattr(migrate, "PATIENCE_S", 0.1)
    with (
        exclusively(parse_url(empty_url, from_argv=False)),
        pytest.raises(StoreUnreachable, match="another process changes its tables"),
    ):
        opened(empty_url)
    opened(empty_url).close()


@pytest.mark.parametrize("backend", SERVERS, indirect=True)
def test_who_finds_nothing_to_change_waits_for_nobody(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start together on tables that are up to date."""
    monkeypatch.setattr(migrate, "PATIENCE_S", 0)
    with exclusively(parse_url(store_url, from_argv=False)), ThreadPoolExecutor(16) as threads:
        for each in [threads.submit(lambda: opened(store_url).close()) for _ in range(16)]:
            each.result()
