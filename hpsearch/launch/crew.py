"""The crew: a fixed number of workers on this machine, until a stop is requested. A worker that fails is replaced,
after a longer wait each time.

A worker that was killed did not fail: preemption may happen any number of times, and the worker is started again.
`hpsearch run` is a crew with a screen; `hpsearch worker --keep` is a crew of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpsearch.bridge.stopping import StopFlag
from hpsearch.launch.process import WorkerProcess

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 120.0
_QUIET_S = 600.0
"""After a worker has lived this long, earlier failures no longer count."""
MAX_FAILURES = 8
"""Failures in a row without such a time, after which the place stays empty; the others continue."""
_BRIEF_S = 30.0
"""A worker that is killed sooner than this is replaced after a growing delay: its own work may cause the kill."""
_LOOK_EVERY_S = 0.5


@dataclass
class _Place:
    """One worker's place: its worker, and since when; or until when it stays empty."""

    worker: WorkerProcess
    started_at: float
    failures: int = 0
    kills: int = 0
    """Kills in a row of workers that had lived briefly."""
    starts_at: float | None = None
    is_left: bool = False


class Crew:
    """`start` starts the worker of a place; `say` shows a person what happens."""

    def __init__(
        self,
        start: Callable[[int], WorkerProcess],
        num_workers: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._say = say
        self._clock = clock
        self._places = [_Place(start(index), clock()) for index in range(num_workers)]

    @property
    def works(self) -> bool:
        """Whether any worker runs or is about to start."""
        return any(not place.is_left for place in self._places)

    @property
    def logs(self) -> list[Path]:
        return [place.worker.log for place in self._places if place.worker.log]

    @property
    def failures(self) -> list[WorkerProcess]:
        """The last workers of the places that were given up after failures."""
        return [place.worker for place in self._places if place.is_left and place.worker.has_failed]

    @property
    def exit_code(self) -> int:
        """The highest exit code of the last workers, once none runs; 1 for one that was killed."""
        codes = [place.worker.exit_code or 0 for place in self._places]
        return max(1 if code < 0 else code for code in codes)

    def look(self, *, stopping: bool) -> None:
        """Replaces failed workers when it is time; `stopping`: none is replaced any more."""
        for index, place in enumerate(self._places):
            if place.is_left or place.worker.is_running:
                continue
            if stopping or not place.worker.has_failed or place.worker.is_final:
                place.is_left = True
            elif place.starts_at is None:
                self._note_end(index, place)
            elif self._clock() >= place.starts_at:
                place.worker, place.started_at, place.starts_at = self._start(index), self._clock(), None

    def _note_end(self, index: int, place: _Place) -> None:
        lived_s = self._clock() - place.started_at
        ending = f"worker {index} ended: {place.worker.last_line()}"
        if place.worker.was_killed:
            place.kills = 1 if lived_s >= _BRIEF_S else place.kills + 1
            return self._wait(place, place.kills, ending)
        place.failures = 1 if lived_s >= _QUIET_S else place.failures + 1
        if place.failures >= MAX_FAILURES:
            place.is_left = True
            log = f". The log is {place.worker.log}" if place.worker.log else ""
            self._say(f"{ending}, {place.failures} times in a row: it is not replaced{log}")
            return None
        return self._wait(place, place.failures, ending)

    def _wait(self, place: _Place, times: int, ending: str) -> None:
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (min(times, MAX_FAILURES) - 1))
        place.starts_at = self._clock() + wait_s
        self._say(f"{ending}; another one starts in {wait_s:g} s")

    def stop(self, *, now: bool = False) -> None:
        for place in self._places:
            place.worker.stop(now=now)


def supervise(
    crew: Crew,
    stop: StopFlag,
    say: Callable[[str], None],
    look: Callable[[], None] = lambda: None,
    stopping: str = "stopping …",
) -> None:
    """Runs until no worker is left. Passes a stop on, and an urgent one once more; calls `look` in each round.

    `stopping` is the message for a stop that isn't urgent. A cluster's job can promise no more: its worker, not this
    process, gets `hpsearch stop --now` through the store.
    """
    asked = 0
    try:
        while crew.works:
            look()
            if stop.requested and asked < 1 + stop.urgent:
                asked = 1 + stop.urgent
                crew.stop(now=stop.urgent)
                say("stopping at once" if stop.urgent else stopping)
            crew.look(stopping=stop.requested)
            stop.wait(_LOOK_EVERY_S)
    finally:
        crew.stop()
