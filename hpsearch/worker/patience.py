"""Patience: retrying while the store can't be reached, for as long as `--wait-for-store` allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_random_exponential

from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import Interrupted, StoreUnreachable

T = TypeVar("T")


def patiently(do: Callable[[], T], limit_s: float, stop: StopFlag, say: Callable[[str], None]) -> T:
    """Retries `do` while the store is out of reach; the outage is reported once.

    Raises:
        StoreUnreachable: after the limit.
        Interrupted: a stop was requested meanwhile.
    """

    def said(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            say(f"{state.outcome.exception()}; trying again for {limit_s / 60:g} minutes")

    @retry(
        retry=retry_if_exception_type(StoreUnreachable),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        stop=lambda state: stop.requested or stop_after_delay(limit_s)(state),
        sleep=stop.wait,
        before_sleep=said,
        reraise=True,
    )
    def done() -> T:
        return do()

    try:
        return done()
    except StoreUnreachable as error:
        if stop.requested:
            raise Interrupted(f"stopped while the store was away: {error}") from error
        raise
