"""Heartbeats: a worker says what it does, renews its lease, and learns of orders such as pause and stop.

They are given when due, from whatever code the worker is in; the relay's thread writes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import LeaseLost, StoreUnreachable
from hpsearch.store import Activity, Lease, Store
from hpsearch.store.orders import Orders
from hpsearch.worker.relay import Relay

LEASE_S = 60.0
_RENEW_EVERY_S = 10.0
_BEAT_EVERY_S = 1.0
_MOST_PER_S = 64.0
"""Heartbeats per second of all of a study's workers together. Each is a transaction, and hundreds a second would delay
claims and reports (`python -m bench store_load`).
"""
_MOMENT_S = 0.5

log = logging.getLogger("hpsearch.worker")

Look = Callable[[Activity], tuple[Activity, str]]
"""Adds the trainer's memory, seen from outside, to the activity, and returns it with the device's name."""


def seconds_between(at_work: int) -> float:
    """Seconds between two heartbeats of one of `at_work` workers; short enough that a lease survives three that
    fail.
    """
    return min(max(_BEAT_EVERY_S, at_work / _MOST_PER_S), LEASE_S / 4)


class Signs:
    """The heartbeats of one worker, from its first claim to its end."""

    def __init__(
        self, store: Store, worker_id: str, relay: Relay, stop: StopFlag, look: Look, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._relay = relay
        self._stop = stop
        self._look = look
        self._clock = clock
        self._told_at = self._renewed_at = float("-inf")
        self.every_s = seconds_between(1)
        """Seconds between two heartbeats."""
        self._given: Future[Orders] | None = None
        self._renewing: Lease | None = None
        """The lease that the last heartbeat renews."""

    def give(self, activity: Activity, lease: Lease | None = None, step: int = 0) -> None:
        """Sends a heartbeat; one at a time. Raises LeaseLost as soon as the store has said that this lease is lost."""
        self._hear(lease)
        now = self._clock()
        if self._given is not None or now - self._told_at < self.every_s:
            return
        self._told_at = now
        renewed = lease if now - self._renewed_at >= _RENEW_EVERY_S else None
        if renewed is not None:
            self._renewed_at = now
        self._renewing = renewed
        self._given = self._relay.offer(lambda: self._write(activity, renewed, step))
        if self._relay.is_answered(self._given, _MOMENT_S):
            self._hear(lease)

    def renewed(self, lease: Lease) -> None:
        """The lease is new: it needs no renewal for a while, and its `at_work` sets how often heartbeats are sent."""
        self._renewed_at = self._clock()
        self.every_s = seconds_between(lease.at_work)

    def _write(self, activity: Activity, lease: Lease | None, step: int) -> Orders:
        doing, device = self._look(activity)
        return self._store.workers.give_sign(self._worker_id, doing, device, lease, LEASE_S, step)

    def _hear(self, lease: Lease | None) -> None:
        if self._given is None or not self._given.done():
            return
        given, self._given = self._given, None
        try:
            orders = given.result()
        except StoreUnreachable as error:
            log.warning("%s", error)
            self._renewed_at = float("-inf")  # the first thing to do once the store is back
            return
        except LeaseLost:
            if self._renewing == lease:
                raise
            return  # for a trial that this worker no longer has
        if orders.stop:
            self._stop.order(now=orders.stop_now)
