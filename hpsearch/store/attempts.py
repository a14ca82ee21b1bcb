"""Attempts: each claim of a slot with its worker, its begin and its end, for the timeline and
for what a trial took.

They are written in the transactions that claim and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, column, insert, inspect, select, table, update

from hpsearch.store.engine import database_now, now_by
from hpsearch.store.fence import Lease
from hpsearch.store.tables import attempts, leases

_trials = table("trials", column("trial_id"), column("number"))


class Ending(StrEnum):
    """How an attempt ended without an outcome of its trial."""

    STOPPED = "stopped"
    """Its worker was asked to stop."""
    SET_ASIDE = "device set aside"
    TRAINER_DIED = "trainer died"
    MISTAKE = "mistake of hpsearch"
    ELSEWHERE = "ended by another program"


@dataclass(frozen=True)
class StoredAttempt:
    """`ended_at` and `ending` are None while it runs, and where it ended without a word: its worker was killed."""

    slot: int
    trial: int | None
    """Its number; None before the slot has a trial."""
    attempt: int
    worker_id: str
    began_at: float
    ended_at: float | None
    ending: str | None


def begin(connection: Connection, lease: Lease, worker_id: str, now: float) -> None:
    values = {"lease_id": lease.lease_id, "attempt": lease.attempt, "study_id": lease.study_id}
    connection.execute(insert(attempts).values(values | {"worker_id": worker_id, "began_at": now}))


def end(connection: Connection, lease: Lease, ending: str) -> None:
    own = (attempts.c.lease_id == lease.lease_id) & (attempts.c.attempt == lease.attempt)
    connection.execute(update(attempts).where(own).values(ended_at=now_by(connection), ending=ending))


def attempts_of(engine: Engine, study_id: int) -> tuple[list[StoredAttempt], float]:
    """By slot and attempt, and the store's clock. A store of an older hpsearch that is only read has none."""
    wanted = (leases.c.slot, _trials.c.number, *(attempts.c[name] for name in _COLUMNS))
    chosen = (
        select(*wanted)
        .join_from(attempts, leases, leases.c.lease_id == attempts.c.lease_id)
        .outerjoin(_trials, _trials.c.trial_id == leases.c.trial_id)
        .where(attempts.c.study_id == study_id)
        .order_by(leases.c.slot, attempts.c.attempt)
    )
    with engine.begin() as connection:
        rows = connection.execute(chosen).all() if inspect(connection).has_table(attempts.name) else []
        return [StoredAttempt(*row) for row in rows], database_now(connection)


_COLUMNS = ("attempt", "worker_id", "began_at", "ended_at", "ending")
