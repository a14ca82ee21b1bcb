"""A database that is out of reach for a while."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from hpsearch.store import Store


class Outage:
    """While `is_down`, no transaction can begin."""

    is_down = False
    refused = 0

    def begin(self, _: object) -> None:
        if self.is_down:
            self.refused += 1
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError("the server closed the connection"))


@pytest.fixture
def outage(empty_store: Store) -> Iterator[Outage]:
    outage, engine = Outage(), empty_store.optuna.engine
    event.listen(engine, "begin", outage.begin, insert=True)
    yield outage
    event.remove(engine, "begin", outage.begin)
