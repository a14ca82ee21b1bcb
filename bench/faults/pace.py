"""Pace: hpsearch's times made shorter, so that many leases, graces and deadlines fit into a storm.

All by the same factor, so that their order stays the same.
"""

from __future__ import annotations

import os

PACE = "FAULTS_PACE"
"""Names the factor in a worker's environment."""


def pace() -> float:
    return float(os.environ.get(PACE, "1"))


def hurry() -> None:
    """Shortens the times of this process by the factor in the environment."""
    factor = pace()
    if factor == 1:
        return
    from hpsearch.store import deadlines, pulse
    from hpsearch.worker import relay, signs, worker

    signs.LEASE_S = worker.LEASE_S = signs.LEASE_S / factor
    signs._RENEW_EVERY_S /= factor
    signs._BEAT_EVERY_S /= factor
    signs._MOMENT_S /= factor
    pulse._SILENCE_S /= factor
    pulse._NOTE_EVERY_S /= factor
    pulse.GRACE_S /= factor
    relay._HARD_S /= factor
    relay._ANSWER_S /= factor
    relay.Relay.is_answered.__defaults__ = (relay._ANSWER_S,)
    for seconds in (deadlines.STATEMENT_S, deadlines.LOCK_S):
        shorter = f"'{round(1000 * seconds / factor)}ms'"
        deadlines._POSTGRESQL = deadlines._POSTGRESQL.replace(f"'{seconds}s'", shorter)
    deadlines.CONNECT_S = 2  # libpq knows no less
    between_tries = relay.wait_random_exponential
    relay.wait_random_exponential = lambda multiplier, max: between_tries(  # noqa: A006
        multiplier=multiplier / factor, max=max / factor
    )
