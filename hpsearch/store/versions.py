"""Which version the tables have, Optuna's and ours, and which one this installation can read. It changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna.storages._rdb.models
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_READABLE = {"0003"}
"""Older tables of ours that can be read as they are: what is new since then is taken for empty."""
VERSION_TABLE = "hpsearch_alembic_version"
OURS = Path(__file__).with_name("migrations")
OPTUNA_S = Path(optuna.storages._rdb.models.__file__).with_name("alembic")


@dataclass(frozen=True)
class TableVersion:
    """`found` is None where there is no such table yet."""

    whose: str
    found: str | None
    newest: str
    is_known: bool

    @property
    def is_newest(self) -> bool:
        return self.found == self.newest

    @property
    def is_readable(self) -> bool:
        """Also without an upgrade."""
        return self.is_newest or (self.whose == "hpsearch" and self.found in _READABLE)

    @property
    def mismatch(self) -> str | None:
        """Why this installation can't read the tables; a clause that follows the store's name."""
        if self.is_newest:
            return None
        if self.is_known:
            return f"has tables of an older {self.whose} ({self.found}, not {self.newest})"
        return f"was made by a newer {self.whose} (its tables are at {self.found})"

    @property
    def fix(self) -> str:
        return "hpsearch store upgrade" if self.is_known else f"update {self.whose}"


def version_of_ours(connection: Connection) -> TableVersion:
    return _version(connection, "hpsearch", OURS, VERSION_TABLE)


def version_of_optuna(connection: Connection) -> TableVersion:
    return _version(connection, "optuna", OPTUNA_S, "alembic_version")


def _version(connection: Connection, whose: str, scripts_in: Path, table: str) -> TableVersion:
    found = MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
    scripts = ScriptDirectory(str(scripts_in))
    newest = scripts.get_current_head()
    assert newest is not None
    known = found is not None and found in {script.revision for script in scripts.walk_revisions()}
    return TableVersion(whose, found, newest, known)
