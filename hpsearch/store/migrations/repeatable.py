"""Idempotent changes of tables, so that an upgrade that was interrupted can be repeated from its beginning.

SQLite and PostgreSQL roll an interrupted upgrade back. MySQL and MariaDB commit each of these statements by itself, so
the first half stays (https://mariadb.com/docs/server/reference/sql-statements/transactions/sql-statements-that-cause-an-implicit-commit).
IF NOT EXISTS would do for MariaDB's columns and indexes; MySQL has it for tables alone.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op


def make_table(name: str, *parts: sa.Column[Any] | sa.Constraint, **options: Any) -> None:
    """Indexes are made separately, by `make_index`: a table may exist without them."""
    if not _inspector().has_table(name):
        op.create_table(name, *parts, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    if column.name not in {found["name"] for found in _inspector().get_columns(table)}:
        op.add_column(table, column)


def make_index(table: str, *columns: str, name: str | None = None) -> None:
    name = name or f"ix_{table}_{'_'.join(columns)}"
    if name not in {found["name"] for found in _inspector().get_indexes(table)}:
        op.create_index(name, table, list(columns))


def is_nullable(table: str, column: str) -> bool:
    return any(found["nullable"] for found in _inspector().get_columns(table) if found["name"] == column)


def is_unique(table: str, constraint: str) -> bool:
    return constraint in {found["name"] for found in _inspector().get_unique_constraints(table)}


def _inspector() -> sa.Inspector:
    """A new one for each call: an inspector caches what it has read."""
    return sa.inspect(op.get_bind())
