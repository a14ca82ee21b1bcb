"""Store: one open database with everything that is kept in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType

from sqlalchemy.engine import URL

from hpsearch.store.claims import Claims
from hpsearch.store.engine import named, open_optuna_storage, reaching
from hpsearch.store.launches import Launches
from hpsearch.store.leases import Leases
from hpsearch.store.migrate import exclusively, refuse_another_optuna, upgrade
from hpsearch.store.orders import StudyOrders
from hpsearch.store.reading import are_newest, open_to_read
from hpsearch.store.studies import Studies
from hpsearch.store.trials import QuickStorage
from hpsearch.store.workers import Workers


class Store:
    """Use as a context manager. `optuna` is the same database through Optuna's storage."""

    def __init__(self, url: URL, *, only_to_read: bool = False) -> None:
        """Opens the database and brings its tables up to date; `only_to_read` creates and locks nothing.

        Raises:
            StoreUnreachable: it did not answer.
            InputError: its driver is missing, a newer hpsearch made it, or its file can't be a database; to read: there
                is none, or a much older hpsearch made it.
        """
        self.url = url
        self.optuna: QuickStorage = open_to_read(url) if only_to_read else self._open_to_write()
        self.studies = Studies(self.optuna.engine)
        self.leases = Leases(self.optuna.engine)
        self.orders = StudyOrders(self.optuna.engine)
        self.claims = Claims(self.optuna.engine)
        self.workers = Workers(self.optuna.engine)
        self.launches = Launches(self.optuna.engine)

    def _open_to_write(self) -> QuickStorage:
        with nullcontext() if are_newest(self.url) else exclusively(self.url):
            storage = open_optuna_storage(self.url)
            try:
                with self.reaching():
                    refuse_another_optuna(storage.engine)
                    upgrade(storage.engine)
            except BaseException:
                storage.remove_session()
                storage.engine.dispose()
                raise
        return storage

    @property
    def name(self) -> str:
        """For people: the URL without secrets."""
        return named(self.url)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Within this, a database that can't be reached raises StoreUnreachable."""
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
