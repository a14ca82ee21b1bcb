"""Leases: who may work on which trial. The budget is reserved here, in one transaction with the claim.

A study of 40 trials has 40 slots. A slot is leased to a worker for a time; the lease is renewed while the worker
lives and taken over when it expires. `attempt` counts the leases of a slot and is the fencing token: a worker
whose attempt is no longer the current one gets nothing accepted.

    (no row) ──claim──► leased ──finish──► result stored ──close──► finished
                          │ ▲
                          │ └─ expired or released: claimed again, attempt + 1
                          └─ release: given back by a worker that was asked to stop
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, and_, event, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from hpsearch.errors import HpsearchError, LeaseLost
from hpsearch.store.engine import database_now
from hpsearch.store.tables import is_in_optuna, leases, studies


@dataclass(frozen=True)
class Lease:
    """A worker's right to work on one slot of a study. `result` is there when an earlier worker had finished."""

    lease_id: int
    study_id: int
    slot: int
    trial_id: int | None
    attempt: int
    deaths: int
    result: str | None


@dataclass(frozen=True)
class Slots:
    """How far a study is: slots that are finished, and slots that are leased right now."""

    wanted: int
    finished: int
    leased: int

    @property
    def all_finished(self) -> bool:
        return self.finished >= self.wanted


_fence: ContextVar[Lease | None] = ContextVar("fence", default=None)


class Leases:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        event.listen(engine, "begin", _check_fence)

    def claim(
        self, study_id: int, worker_id: str, duration_s: float, dead_workers: Collection[str] = ()
    ) -> Lease | None:
        """A slot that nobody works on: one whose lease ran out, else a new one while the budget has any.

        Raises:
            HpsearchError: the study was deleted.
        """
        with self._engine.begin() as connection:
            wanted = self._lock_study(connection, study_id)
            now = database_now(connection)
            row = connection.execute(_takeable(study_id, now, dead_workers)).first()
            if row is not None:
                return self._take_over(connection, row, worker_id, now + duration_s)
            taken = connection.scalar(select(func.count()).where(leases.c.study_id == study_id)) or 0
            if taken >= wanted:
                return None
            values = {
                "study_id": study_id,
                "slot": taken,
                "worker_id": worker_id,
                "attempt": 1,
                "deaths": 0,
                "expires_at": now + duration_s,
                "finished": False,
            }
            inserted = connection.execute(insert(leases).values(values)).inserted_primary_key
            assert inserted is not None
            return Lease(inserted[0], study_id, taken, None, 1, 0, None)

    @staticmethod
    def _lock_study(connection: Connection, study_id: int) -> int:
        """Holds other claims of the study back until this transaction ends; the number of trials it may have."""
        study = select(studies.c.trials).where(studies.c.study_id == study_id, is_in_optuna)
        trials = connection.execute(study.with_for_update()).scalar_one_or_none()
        if trials is None:
            raise HpsearchError("the study is no longer in the store: it was deleted while this worker worked on it")
        return int(trials)

    @staticmethod
    def _take_over(connection: Connection, row: Any, worker_id: str, expires_at: float) -> Lease:
        deaths = row.deaths + (row.worker_id is not None)
        connection.execute(
            update(leases)
            .where(leases.c.lease_id == row.lease_id)
            .values(worker_id=worker_id, attempt=row.attempt + 1, deaths=deaths, expires_at=expires_at)
        )
        return Lease(row.lease_id, row.study_id, row.slot, row.trial_id, row.attempt + 1, deaths, row.result)

    def bind(self, lease: Lease, trial_id: int) -> Lease | None:
        """Ties a trial to the slot for good; None when another slot has it already."""
        try:
            self._change(lease, trial_id=trial_id)
        except IntegrityError:
            return None
        return replace(lease, trial_id=trial_id)

    def renew(self, lease: Lease, duration_s: float) -> None:
        with self._engine.begin() as connection:
            expires_at = database_now(connection) + duration_s
            _changed(connection, lease, expires_at=expires_at)

    def release(self, lease: Lease) -> None:
        """Gives the slot back at once; the next worker continues it and no death is counted."""
        self._change(lease, worker_id=None, expires_at=0.0)

    def store_result(self, lease: Lease, result: str) -> None:
        """The trial's end, kept here until the search knows it: a kill in between loses nothing."""
        self._change(lease, result=result)

    def close(self, lease: Lease) -> None:
        self._change(lease, finished=True)

    def slots(self, study_id: int) -> Slots:
        with self._engine.begin() as connection:
            wanted = connection.scalar(select(studies.c.trials).where(studies.c.study_id == study_id)) or 0
            counted = select(leases.c.finished, func.count()).where(leases.c.study_id == study_id)
            counts = {bool(row[0]): row[1] for row in connection.execute(counted.group_by(leases.c.finished))}
        return Slots(wanted, counts.get(True, 0), counts.get(False, 0))

    def seconds_left(self, study_id: int) -> dict[str, float]:
        """Worker → seconds until its lease runs out, for the leases that are held."""
        held = select(leases.c.worker_id, leases.c.expires_at).where(
            leases.c.study_id == study_id, leases.c.finished.is_(False), leases.c.worker_id.is_not(None)
        )
        with self._engine.begin() as connection:
            now = database_now(connection)
            return {row.worker_id: row.expires_at - now for row in connection.execute(held)}

    def _change(self, lease: Lease, **values: Any) -> None:
        with self._engine.begin() as connection:
            _changed(connection, lease, **values)


def _takeable(study_id: int, now: float, dead_workers: Collection[str]) -> Any:
    expired = or_(leases.c.expires_at < now, leases.c.worker_id.in_(list(dead_workers)))
    open_slot = and_(leases.c.study_id == study_id, leases.c.finished.is_(False), expired)
    return select(leases).where(open_slot).order_by(leases.c.slot).limit(1).with_for_update()


def _is_current(lease: Lease) -> Any:
    return and_(leases.c.lease_id == lease.lease_id, leases.c.attempt == lease.attempt, leases.c.finished.is_(False))


def _changed(connection: Connection, lease: Lease, **values: Any) -> None:
    found = connection.execute(update(leases).where(_is_current(lease)).values(values))
    if found.rowcount != 1:
        raise LeaseLost(f"slot {lease.slot}: another worker has taken over attempt {lease.attempt}")


@contextmanager
def fenced(lease: Lease) -> Iterator[None]:
    """Within this, every transaction of the store, Optuna's too, first checks that the lease is still held.

    The check and the writes are one transaction, so what a worker writes after its lease was taken over is never
    accepted, however long it was paused.
    """
    token = _fence.set(lease)
    try:
        yield
    finally:
        _fence.reset(token)


def _check_fence(connection: Connection) -> None:
    lease = _fence.get()
    if lease is None:
        return
    held = connection.execute(select(leases.c.lease_id).where(_is_current(lease)).with_for_update()).first()
    if held is None:
        raise LeaseLost(f"slot {lease.slot}: another worker has taken over attempt {lease.attempt}")
