"""What a piece of work asks of the database: transactions, statements and rows. No clock: the same on any machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Engine, event

T = TypeVar("T")


@dataclass
class Asked:
    """`statements` are without BEGIN and COMMIT; many rows that are inserted at once are one. `rows` are those read."""

    transactions: int = 0
    statements: int = 0
    rows: int = 0


class Meter:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, work: Callable[[], T]) -> tuple[T, Asked]:
        with self._listening() as asked:
            found = work()
        return found, asked

    @contextmanager
    def _listening(self) -> Iterator[Asked]:
        asked = Asked()

        def begin(_connection: Any) -> None:
            asked.transactions += 1

        def execute(connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
            if statement.startswith("BEGIN"):
                return
            asked.statements += 1
            if statement.lstrip().startswith("SELECT"):
                asked.rows += _rows(connection, statement, parameters)

        listeners: list[tuple[str, Callable[..., None]]] = [("begin", begin), ("before_cursor_execute", execute)]
        for name, listener in listeners:
            event.listen(self._engine, name, listener)
        try:
            yield asked
        finally:
            for name, listener in listeners:
                event.remove(self._engine, name, listener)


def _rows(connection: Any, statement: str, parameters: Any) -> int:
    """SQLite's driver does not tell before they are fetched, so they are read twice."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, parameters)
        return len(cursor.fetchall())
    finally:
        cursor.close()
