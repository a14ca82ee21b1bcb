"""Store: one open database with everything that is kept in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from sqlalchemy.engine import URL

from hpsearch.store.engine import open_optuna_storage, reaching, shown
from hpsearch.store.leases import Leases
from hpsearch.store.migrate import exclusively, upgrade
from hpsearch.store.orders import StudyOrders
from hpsearch.store.studies import Studies
from hpsearch.store.trials import QuickStorage
from hpsearch.store.workers import Workers


class Store:
    """Use as a context manager. `optuna` is the same database as Optuna sees it."""

    def __init__(self, url: URL) -> None:
        """Opens the database and brings its tables up to date.

        Raises:
            StoreUnreachable: it did not answer.
            InputError: its driver is missing, it was made by a newer hpsearch, or its file can't be one.
        """
        self.url = url
        with exclusively(url):
            self.optuna: QuickStorage = open_optuna_storage(url)
            try:
                with self.reaching():
                    upgrade(self.optuna.engine)
            except BaseException:
                self.close()
                raise
        self.studies = Studies(self.optuna.engine)
        self.leases = Leases(self.optuna.engine)
        self.orders = StudyOrders(self.optuna.engine)
        self.workers = Workers(self.optuna.engine)

    @property
    def name(self) -> str:
        """For people: the URL without secrets, and a file's path from here where that is shorter."""
        name = shown(self.url)
        return name.replace(f"sqlite:///{Path.cwd()}/", "sqlite:///")

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Within this, a database that is out of reach raises StoreUnreachable."""
        with reaching(self.url):
            yield

    def close(self) -> None:
        self.optuna.remove_session()
        self.optuna.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
