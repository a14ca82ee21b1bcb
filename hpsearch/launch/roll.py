"""The roll call of a study's jobs: what each engine says of the jobs launched on it, or why it can't be asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hpsearch.errors import HpsearchError
from hpsearch.launch.launcher import JobState, JobView
from hpsearch.launch.sites import make_launcher
from hpsearch.store import Store, StoredLaunch

_AT_ONCE = 8
_ASK_EVERY_S = 10.0


@dataclass(frozen=True)
class Called:
    """A launch and its jobs, or why the engine could not be asked about them."""

    launch: StoredLaunch
    jobs: list[JobView] = field(default_factory=list)
    silence: str | None = None

    @property
    def there(self) -> list[JobView]:
        return [job for job in self.jobs if job.is_there]

    @property
    def is_over(self) -> bool:
        return self.silence is None and all(job.state is JobState.GONE for job in self.jobs)


def call_roll(store: Store, study_id: int) -> list[Called]:
    """The oldest launch first. Engines are asked in parallel, so that a slow one delays no other."""
    with store.reaching():
        launches = store.launches.of(study_id)
    if not launches:
        return []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_call, launches))


class Roll:
    """Repeated while somebody watches, but seldom: a cluster's controller serves everybody."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._kept: dict[int, tuple[float, list[Called]]] = {}

    def of(self, study_id: int) -> list[Called]:
        asked_at, called = self._kept.get(study_id, (float("-inf"), []))
        if self._clock() - asked_at >= _ASK_EVERY_S:
            called = call_roll(self._store, study_id)
            self._kept[study_id] = self._clock(), called
        return called


def dismiss(store: Store, study_id: int, *, now: bool) -> list[str]:
    """Asks every engine to end what was launched; returns its errors, as text."""
    with store.reaching():
        launches = store.launches.of(study_id)
    silences = []
    for launch in launches:
        try:
            make_launcher(launch.engine, launch.options).stop(launch, now=now)
        except HpsearchError as error:
            silences.append(f"{launch.engine}, launched on {launch.host}: {error}")
    return silences


def _call(launch: StoredLaunch) -> Called:
    try:
        return Called(launch, make_launcher(launch.engine, launch.options).jobs(launch))
    except HpsearchError as error:
        return Called(launch, silence=str(error))
