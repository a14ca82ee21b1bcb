"""Bringing the tables of a store up to date when a person asks for it: Optuna's and ours, after a copy of the file."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.errors import InputError
from hpsearch.store.backup import back_up
from hpsearch.store.engine import named, open_optuna_storage
from hpsearch.store.migrate import exclusively, upgrade
from hpsearch.store.reading import reading
from hpsearch.store.trials import QuickStorage
from hpsearch.store.versions import TableVersion, version_of_optuna, version_of_ours


def upgrade_store(url: URL) -> list[str]:
    """Returns what was done, one line each.

    Raises:
        NoStoreYet: there is none.
        InputError: a newer hpsearch or Optuna made it.
    """
    with reading(url):  # where there is no store, none is created
        pass
    with exclusively(url):
        storage = open_optuna_storage(url)
        try:
            before = _versions(storage)
            for version in before:
                if not version.is_known:
                    raise InputError(f"the store {named(url)} {version.mismatch}: {version.fix}")
            if all(version.is_newest for version in before):
                return [f"up to date: {', '.join(f'{v.whose} {v.found}' for v in before)}"]
            lines = [_kept(url, before)] if url.get_backend_name() == "sqlite" else []
            if not before[1].is_newest:
                _quietly(storage)
            upgrade(storage.engine)
            after = _versions(storage)
            pairs = zip(before, after, strict=True)
            return lines + [f"{was.whose}'s tables: {was.found} → {now.found}" for was, now in pairs if was != now]
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _quietly(storage: QuickStorage) -> None:
    """Optuna configures logging for the whole process unless it is configured already (5.0.0,
    storages/_rdb/alembic/env.py).
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    storage.upgrade()


def _versions(storage: QuickStorage) -> tuple[TableVersion, TableVersion]:
    """Ours, Optuna's."""
    with storage.engine.connect() as connection:
        return version_of_ours(connection), version_of_optuna(connection)


def _kept(url: URL, before: tuple[TableVersion, TableVersion]) -> str:
    """Copies the file to an unused name beside it."""
    file = Path(str(url.database))
    name = f"{file.name}.before-{before[0].newest}-{before[1].newest}"
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
    copy = next(path for path in map(file.with_name, names) if not path.exists())
    back_up(url, copy)
    return f"a copy of the store as it was: {copy}"
