"""The fence: nothing is accepted from a worker whose lease was taken over, whatever it writes and by whichever way.

`attempt` counts the leases of a slot and is the fencing token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from optuna.storages._rdb.models import TrialModel
from optuna.trial import TrialState
from sqlalchemy import Connection, and_, select, update

from hpsearch.errors import LeaseLost
from hpsearch.store.tables import leases


class Handover(StrEnum):
    """How a lease came to its holder."""

    NEW = "a new trial"
    GIVEN_BACK = "the last holder gave it back"
    HOLDER_DEAD = "the last holder is certainly dead"
    EXPIRED = "the last holder was silent for too long, and may live"


@dataclass(frozen=True)
class Lease:
    """A worker's right to work on one slot of a study.

    `result` is set when an earlier worker had finished. `strikes` counts the attempts in a row that ended without
    progress, `progress` is the furthest optimizer step of any, `reasons` say how each ended, `stumbles` counts workers
    that failed at the slot by a bug in hpsearch. `at_work`: how many slots of the study were open when this one was
    claimed, about the number of workers.
    """

    lease_id: int
    study_id: int
    slot: int
    trial_id: int | None
    attempt: int
    handover: Handover = Handover.NEW
    strikes: int = 0
    progress: int = 0
    stumbles: int = 0
    reasons: tuple[str, ...] = ()
    result: str | None = None
    at_work: int = 1


_fence: ContextVar[Lease | None] = ContextVar("fence", default=None)


@contextmanager
def fenced(lease: Lease) -> Iterator[None]:
    """Within this, every transaction of the store, Optuna's too, first checks that the lease is still held.

    The check and the writes are one transaction, so nothing that a worker writes after its lease was taken over is
    accepted, however long the worker was paused.
    """
    token = _fence.set(lease)
    try:
        yield
    finally:
        _fence.reset(token)


def check_fence(connection: Connection) -> None:
    """At the beginning of every transaction."""
    lease = _fence.get()
    if lease is not None:
        hold_slot(connection, lease)


def hold_slot(connection: Connection, lease: Lease) -> int | None:
    """Locks the lease until the transaction ends; returns the trial that the slot is bound to. Raises LeaseLost."""
    chosen = select(leases.c.lease_id, leases.c.trial_id).where(_is_current(lease))
    held = connection.execute(chosen.with_for_update()).first()
    if held is None:
        raise LeaseLost(_overtaken(lease))
    return None if held.trial_id is None else int(held.trial_id)


def hold(connection: Connection, lease: Lease) -> TrialState:
    """Locks the lease and its trial until the transaction ends: nobody can take the lease over or end the trial
    meanwhile.

    Returns the trial's state. Raises LeaseLost.
    """
    trials: Any = TrialModel.__table__
    chosen = select(trials.c.state).join(leases, leases.c.trial_id == trials.c.trial_id).where(_is_current(lease))
    state: TrialState | None = connection.scalar(chosen.with_for_update())
    if state is None:
        raise LeaseLost(_overtaken(lease))
    return state


def change(connection: Connection, lease: Lease, **values: Any) -> None:
    """Raises LeaseLost."""
    found = connection.execute(update(leases).where(_is_current(lease)).values(values))
    if found.rowcount != 1:
        raise LeaseLost(_overtaken(lease))


def _is_current(lease: Lease) -> Any:
    return and_(leases.c.lease_id == lease.lease_id, leases.c.attempt == lease.attempt, leases.c.finished.is_(False))


def _overtaken(lease: Lease) -> str:
    return f"slot {lease.slot}: another worker has taken over attempt {lease.attempt}"
