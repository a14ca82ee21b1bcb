"""MySQL and MariaDB commit each change of a table by itself: the next opening continues where one was cut off.

Every opening here is cut off after the first change that it makes, until there is nothing left to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from contract_parts import created, opened, spec_of
from contract_servers import MariaDb
from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Engine, MetaData, create_engine, event, make_url, text

from hpsearch.store.engine import open_optuna_storage, parse_url
from hpsearch.store.migrate import _config
from hpsearch.store.tables import metadata

pytestmark = [pytest.mark.cluster, pytest.mark.parametrize("backend", ["mariadb"], indirect=True)]


class CutOff(BaseException):
    """As if the process had been killed."""


@contextmanager
def cut_off_after_a_change() -> Iterator[None]:
    def cut(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.split(maxsplit=1)[0] in ("CREATE", "ALTER"):
            raise CutOff(statement)

    event.listen(Engine, "after_cursor_execute", cut)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", cut)


def opened_at_last(url: str, server: MariaDb) -> int:
    """How often an opening was cut off."""
    told: list[str] = []
    for count in range(100):
        try:
            with cut_off_after_a_change():
                opened(url).close()
        except CutOff as cut:
            told.append(str(cut))
            end_connections(server, url)
            continue
        return count
    raise AssertionError(told[-3:])


def end_connections(server: MariaDb, url: str) -> None:
    """As they end with their process."""
    name = make_url(url).database
    for (number,) in server.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
        server.execute(f"KILL {number}")


def differences(url: str, expected: MetaData) -> list[Any]:
    def is_theirs(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in expected.tables

    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"include_name": is_theirs, "compare_type": False}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), expected)
    engine.dispose()
    return found


def test_an_upgrade_that_was_cut_off_goes_on(empty_url: str, mariadb: MariaDb) -> None:
    storage = open_optuna_storage(parse_url(empty_url, from_argv=False))
    with storage.engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number in (1, 2):
            values = f"{number}, 'demo{number}', '', '', 4, '', 7"
            connection.execute(text(f"INSERT INTO hpsearch_studies VALUES ({values})"))
    storage.remove_session()
    storage.engine.dispose()

    assert opened_at_last(empty_url, mariadb) == 21
    assert differences(empty_url, metadata) == []
    with opened(empty_url) as store, store.optuna.engine.connect() as connection:
        uids = set(connection.scalars(text("SELECT uid FROM hpsearch_studies")))
    assert sorted(str(uid)[:6] for uid in uids) == ["demo1-", "demo2-"]


def test_the_making_of_all_tables_goes_on(empty_url: str, mariadb: MariaDb) -> None:
    assert opened_at_last(empty_url, mariadb) > 30
    assert differences(empty_url, metadata) == []
    assert differences(empty_url, BaseModel.metadata) == []
    with opened(empty_url) as store:
        created(store, spec_of())
        assert [study.name for study in store.studies.all()] == ["demo"]
