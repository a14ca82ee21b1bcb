"""Leases: who may work on which trial. The budget is reserved here, in one transaction with the claim.

A study of 40 trials has 40 slots. A slot is leased to a worker for a time; the lease is renewed while the worker
lives and taken over when it expires.

    (no row) ──claim──► leased ──finish──► result stored ──close──► finished ──reopen──► given back
                          │ ▲
                          │ └─ given back, or its holder is dead or silent for too long: claimed again, attempt + 1
                          └─ release: given back by its worker, with what became of the attempt
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, case, event, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from hpsearch.errors import HpsearchError
from hpsearch.store import attempts, pulse
from hpsearch.store.attempts import Ending, StoredAttempt, attempts_of
from hpsearch.store.engine import database_now
from hpsearch.store.fence import Handover, Lease, change, check_fence
from hpsearch.store.tables import is_in_optuna, leases, studies

_KEPT_REASONS = 20


@dataclass(frozen=True)
class Slots:
    """Progress of a study: slots that are finished, and slots that are leased now."""

    wanted: int
    finished: int
    leased: int

    @property
    def all_finished(self) -> bool:
        return self.finished >= self.wanted


class Leases:
    """The leases of all slots. A worker claims a slot, binds it to a trial, renews the lease while it lives, and closes
    the slot or gives it back; other processes only read.

    One object per `Store`, without state: everything is in the table, and each method is one transaction. Times are the
    database's, so that the clocks of two machines need not agree. Once it is made, every transaction of its engine
    obeys `fenced`.

    Raises:
        LeaseLost: from every method that changes a lease: another attempt has the slot, or it is finished.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        event.listen(engine, "begin", check_fence)

    def claim(
        self,
        study_id: int,
        worker_id: str,
        duration_s: float,
        dead_workers: Container[str] = (),
        last_slots: Collection[int] = (),
        uid: str | None = None,
    ) -> Lease | None:
        """Claims a slot that nobody works on: one that was begun, else a new one while the budget has any; one of
        `last_slots` only where there is no other. Slots at which workers failed by a bug come last, so that they delay
        nothing.

        None also where the study is paused. `uid`: the study's own: SQLite reuses the id of a deleted study, and this
        worker, which has the deleted one's space and rows, must not claim slots of another.

        Raises:
            HpsearchError: the study was deleted.
        """
        with self._engine.begin() as connection:
            now = database_now(connection)
            study = self._lock_study(connection, study_id, uid)
            grace_until = pulse.beat(connection, study_id, now, study.seen_at, study.grace_until)
            if study.paused is not None:
                return None
            rows = connection.execute(_open_and_last(study_id)).all()
            at_work = 1 + sum(not row.finished for row in rows)
            free = [row for row in rows if _is_takeable(row, now, dead_workers, is_in_grace=now < grace_until)]
            row = min(free, key=lambda row: (row.slot in last_slots, row.stumbles, row.slot), default=None)
            if row is None or row.slot in last_slots:
                slot = max((row.slot for row in rows), default=-1) + 1
                if slot < study.trials:
                    begun = self._begin(connection, study_id, slot, worker_id, now + duration_s)
                    attempts.begin(connection, begun, worker_id, now)
                    return replace(begun, at_work=at_work)
            if row is None:
                return None
            taken = self._take_over(connection, row.lease_id, worker_id, now + duration_s, dead_workers)
            attempts.begin(connection, taken, worker_id, now)
            return replace(taken, at_work=at_work - 1)

    @staticmethod
    def _lock_study(connection: Connection, study_id: int, uid: str | None) -> Any:
        """Blocks other claims of the study until this transaction ends."""
        wanted = (studies.c.uid, studies.c.trials, studies.c.paused, studies.c.seen_at, studies.c.grace_until)
        study = select(*wanted).where(studies.c.study_id == study_id, is_in_optuna)
        found = connection.execute(study.with_for_update()).first()
        if found is None or uid not in (None, found.uid):
            raise HpsearchError("the study is no longer in the store: it was deleted while this worker worked on it")
        return found

    @staticmethod
    def _begin(connection: Connection, study_id: int, slot: int, worker_id: str, expires_at: float) -> Lease:
        values = {
            "study_id": study_id,
            "slot": slot,
            "worker_id": worker_id,
            "attempt": 1,
            "deaths": 0,
            "strikes": 0,
            "progress": 0,
            "stumbles": 0,
            "expires_at": expires_at,
            "finished": False,
        }
        inserted = connection.execute(insert(leases).values(values)).inserted_primary_key
        assert inserted is not None
        return Lease(inserted[0], study_id, slot, None, 1)

    @staticmethod
    def _take_over(
        connection: Connection, lease_id: int, worker_id: str, expires_at: float, dead_workers: Container[str]
    ) -> Lease:
        row = connection.execute(select(leases).where(leases.c.lease_id == lease_id).with_for_update()).one()
        handover = Handover.EXPIRED
        if row.worker_id is None:
            handover = Handover.GIVEN_BACK
        elif row.worker_id in dead_workers:
            handover = Handover.HOLDER_DEAD
        deaths = row.deaths + (handover is not Handover.GIVEN_BACK)
        connection.execute(
            update(leases)
            .where(leases.c.lease_id == row.lease_id)
            .values(worker_id=worker_id, attempt=row.attempt + 1, deaths=deaths, expires_at=expires_at)
        )
        return Lease(
            lease_id=row.lease_id,
            study_id=row.study_id,
            slot=row.slot,
            trial_id=row.trial_id,
            attempt=row.attempt + 1,
            handover=handover,
            strikes=row.strikes,
            progress=row.progress,
            stumbles=row.stumbles,
            reasons=tuple(json.loads(row.reasons or "[]")),
            result=row.result,
        )

    def bind(self, lease: Lease, trial_id: int) -> Lease | None:
        """Binds a trial to the slot for good; None when another slot has it already."""
        try:
            self._change(lease, trial_id=trial_id)
        except IntegrityError:
            return None
        return replace(lease, trial_id=trial_id)

    def trial_of(self, lease: Lease) -> int | None:
        """The trial that the slot is bound to now."""
        with self._engine.begin() as connection:
            return connection.scalar(select(leases.c.trial_id).where(leases.c.lease_id == lease.lease_id))

    def renew(self, lease: Lease, duration_s: float, step: int = 0) -> None:
        """`step`: the optimizer step of the attempt. A step beyond all earlier ones resets the strikes."""
        with self._engine.begin() as connection:
            renew(connection, lease, database_now(connection), duration_s, step)

    def note(self, lease: Lease) -> None:
        """Stores the lease's strikes, progress, stumbles and reasons."""
        self._change(lease, **_account(lease))

    def give_back(self, lease: Lease, ending: Ending = Ending.STOPPED) -> None:
        """Releases the slot at once and keeps its stored state, including renewals."""
        self._change(lease, ending, worker_id=None, expires_at=0.0)

    def release(self, lease: Lease, ending: Ending = Ending.TRAINER_DIED) -> None:
        """Releases the slot at once and stores its strikes, progress, stumbles and reasons: the next worker
        continues.
        """
        self._change(lease, ending, worker_id=None, expires_at=0.0, **_account(lease))

    def store_result(self, lease: Lease, result: str) -> None:
        """The trial's end, kept here until Optuna has it: a kill in between loses nothing."""
        self._change(lease, result=result)

    def close(self, lease: Lease) -> None:
        self._change(lease, Ending.ELSEWHERE, finished=True)

    def is_closed_with(self, lease: Lease, result: str) -> bool:
        """Whether this very attempt finished the slot with this result."""
        own = (leases.c.lease_id == lease.lease_id) & (leases.c.attempt == lease.attempt) & leases.c.finished.is_(True)
        with self._engine.begin() as connection:
            return connection.scalar(select(leases.c.result).where(own)) == result

    def slots(self, study_id: int) -> Slots:
        with self._engine.begin() as connection:
            wanted = connection.scalar(select(studies.c.trials).where(studies.c.study_id == study_id)) or 0
            counted = select(leases.c.finished, func.count()).where(leases.c.study_id == study_id)
            counts = {bool(row[0]): row[1] for row in connection.execute(counted.group_by(leases.c.finished))}
        return Slots(wanted, counts.get(True, 0), counts.get(False, 0))

    def given_back(self, study_id: int) -> set[int]:
        """Trials (Optuna's ids) that have begun and have no holder: the next worker takes them."""
        chosen = select(leases.c.trial_id).where(
            leases.c.study_id == study_id, leases.c.finished.is_(False), leases.c.worker_id.is_(None)
        )
        with self._engine.begin() as connection:
            return {row.trial_id for row in connection.execute(chosen) if row.trial_id is not None}

    def last_of(self, trial_id: int) -> tuple[str | None, int]:
        """The worker that has the trial, or had it at its end (None where it was given back); and the number of its
        attempts.
        """
        chosen = select(leases.c.worker_id, leases.c.attempt).where(leases.c.trial_id == trial_id)
        with self._engine.begin() as connection:
            found = connection.execute(chosen).first()
        return (None, 0) if found is None else (found.worker_id, found.attempt)

    def attempts(self, study_id: int) -> tuple[list[StoredAttempt], float]:
        """Every claim of every slot, by slot and attempt; and the store's clock."""
        return attempts_of(self._engine, study_id)

    def _change(self, lease: Lease, ending: Ending | None = None, **values: Any) -> None:
        with self._engine.begin() as connection:
            change(connection, lease, **values)
            if ending is not None:
                attempts.end(connection, lease, ending)


def renew(connection: Connection, lease: Lease, now: float, duration_s: float, step: int) -> None:
    """As `Leases.renew` does. Raises LeaseLost."""
    pulse.renew(connection, lease.study_id, now)
    is_further = leases.c.progress < step
    strikes = case((is_further, 0), else_=leases.c.strikes)
    progress = case((is_further, step), else_=leases.c.progress)
    change(connection, lease, expires_at=now + duration_s, strikes=strikes, progress=progress)


def _account(lease: Lease) -> dict[str, Any]:
    return {
        "strikes": lease.strikes,
        "progress": lease.progress,
        "stumbles": lease.stumbles,
        "reasons": json.dumps(lease.reasons[-_KEPT_REASONS:]),
    }


def _open_and_last(study_id: int) -> Any:
    """Selects the open slots (begun, not finished), about as many as there are workers, and the highest slot."""
    columns = leases.c
    last = select(func.max(columns.slot)).where(columns.study_id == study_id).correlate(None).scalar_subquery()
    wanted = (columns.lease_id, columns.slot, columns.worker_id, columns.stumbles, columns.expires_at, columns.finished)
    return select(*wanted).where(columns.study_id == study_id, or_(columns.finished.is_(False), columns.slot == last))


def _is_takeable(row: Any, now: float, dead_workers: Container[str], *, is_in_grace: bool) -> bool:
    if row.finished:
        return False
    if row.worker_id is None or row.worker_id in dead_workers:
        return True
    return not is_in_grace and bool(row.expires_at < now)
