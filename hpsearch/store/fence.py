"""The fence: a worker whose lease was taken over gets nothing accepted, whatever it writes and through whom.

`attempt` counts the leases of a slot and is the fencing token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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

    `result` is there when an earlier worker had finished. `strikes` counts the attempts in a row that ended without
    progress, `progress` is the furthest optimizer step of any, `reasons` say how each ended, `stumbles` counts workers
    that failed at the slot by a mistake of their own.
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


_fence: ContextVar[Lease | None] = ContextVar("fence", default=None)


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


def check_fence(connection: Connection) -> None:
    """At the beginning of every transaction."""
    lease = _fence.get()
    if lease is None:
        return
    held = connection.execute(select(leases.c.lease_id).where(_is_current(lease)).with_for_update()).first()
    if held is None:
        raise LeaseLost(_overtaken(lease))


def change(connection: Connection, lease: Lease, **values: Any) -> None:
    """Raises LeaseLost."""
    found = connection.execute(update(leases).where(_is_current(lease)).values(values))
    if found.rowcount != 1:
        raise LeaseLost(_overtaken(lease))


def _is_current(lease: Lease) -> Any:
    return and_(leases.c.lease_id == lease.lease_id, leases.c.attempt == lease.attempt, leases.c.finished.is_(False))


def _overtaken(lease: Lease) -> str:
    return f"slot {lease.slot}: another worker has taken over attempt {lease.attempt}"
