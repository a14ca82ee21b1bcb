"""What the parts of a run take on the clock: an estimate of a whole study is made of a short run's parts."""

from __future__ import annotations

import time
from functools import cache

import psutil

from hpsearch.trial import Pace

_MOST = 32
"""Number of steps whose times are recorded."""


@cache
def seconds_to_start() -> float:
    """From the start of this process to the first call."""
    return time.time() - psutil.Process().create_time()


class Stopwatch:
    """Each lap begins at the end of the last one; time without a lap belongs to no part."""

    def __init__(self) -> None:
        self._began = self._mark = time.monotonic()
        self._laps: dict[str, list[float]] = {}
        self._rows = self._tokens = 0

    def begin_lap(self) -> None:
        self._mark = time.monotonic()

    def end_lap(self, part: str) -> None:
        """Adds the lap to `part`, a list in Pace. The next one begins."""
        now = time.monotonic()
        laps = self._laps.setdefault(part, [])
        if len(laps) < _MOST or part == "validation_s":  # as many as the run has reports
            laps.append(now - self._mark)
        self._mark = now

    def saw(self, lengths: list[int]) -> None:
        """The token counts of the rows that a step learns from."""
        self._rows += len(lengths)
        self._tokens += sum(lengths)

    def pace(self) -> Pace:
        return Pace(
            start_s=seconds_to_start(),
            whole_s=time.monotonic() - self._began,
            tokens_per_row=self._tokens / max(1, self._rows),
            **self._laps,
        )
