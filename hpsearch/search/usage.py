"""What a study has used (hours, device-hours, cost), and whether it has reached one of its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from hpsearch.spec.limits import LimitsSpec
from hpsearch.store import StoredWorker

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Usage:
    """`hours` with at least one worker, and `device_hours` of all workers (one device each)."""

    hours: float
    device_hours: float

    @classmethod
    def of(cls, workers: Sequence[StoredWorker]) -> Usage:
        spans = sorted((worker.started_at, worker.beat_at) for worker in workers)
        return cls(_covered(spans) / _HOUR_S, sum(end - start for start, end in spans) / _HOUR_S)

    def cost(self, limits: LimitsSpec) -> float | None:
        """In the currency of the price; None where there is none."""
        price = limits.price_per_device_hour
        return None if price is None else price * self.device_hours


def reached(limits: LimitsSpec, usage: Usage, now: datetime) -> str | None:
    """The limit that the study has reached, as text; None: it may go on. `now` has a time zone."""
    if limits.until is not None and now >= limits.until.astimezone():
        return f"it is past {limits.until:%Y-%m-%d %H:%M} (search.limits.until)"
    cost = usage.cost(limits)
    for name, used, limit in (
        ("hours", usage.hours, limits.hours),
        ("device_hours", usage.device_hours, limits.device_hours),
        ("cost", cost, limits.cost),
    ):
        if limit is not None and used is not None and used >= limit:
            return f"{used:.2f} of {limit:g} are used (search.limits.{name})"
    return None


def seconds_for(trials: int, each_s: float, workers: int) -> float:
    """Time for `trials` trials of `each_s` seconds each: in rounds of at most `workers`."""
    return each_s * ceil(trials / workers)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds covered by at least one of the spans, which are sorted by start."""
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
