"""The timeline: what each device did when, as bars from each claim of a trial to its end.

All times are by the store's clock, in seconds since the first claim. Long pauses of everybody are taken out: a study
that was stopped over a weekend would otherwise be two lines at the edges of an empty picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpsearch.search.times import ends
from hpsearch.search.view import StudyView, live
from hpsearch.store import Store, StoredWorker
from hpsearch.store.attempts import StoredAttempt
from hpsearch.store.workers import host_and_pid
from hpsearch.trial import STARTING

UNKNOWN = "unknown device"
_LONG_PAUSE = 0.2
"""A pause that is longer than this share of the time with work is taken out."""


@dataclass(frozen=True)
class Bar:
    """One attempt of a trial. `trial` is None where it ended before the slot had one."""

    device: str
    lane: int
    """Of the device: 0, or more where several workers shared it."""
    trial: int | None
    slot: int
    attempt: int
    began_s: float
    ended_s: float
    ending: str
    """The trial's outcome, `times.RUNNING`, `times.SILENT` or an `Ending`."""
    is_takeover: bool
    """The trial went on here after another worker had begun it."""

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True)
class Timeline:
    """`devices` by host, `bars` by begin; `began_at` in seconds since 1970; `pauses`: when, and for how long."""

    devices: list[str]
    bars: list[Bar]
    began_at: float
    pauses: list[tuple[float, float]]

    @property
    def seconds(self) -> float:
        return max((bar.ended_s for bar in self.bars), default=0.0)


def read_timeline(store: Store, view: StudyView) -> Timeline:
    """Attempts before version 0004 of the tables are not known."""
    with store.reaching():
        attempts, now = store.leases.attempts(view.study.study_id)
    return timeline_of(attempts, view.workers, now)


def timeline_of(attempts: Sequence[StoredAttempt], workers: Sequence[StoredWorker], now: float) -> Timeline:
    """`attempts` by slot and attempt."""
    if not attempts:
        return Timeline([], [], now, [])
    alive = {worker.worker_id for worker in live(list(workers))}
    devices = _devices(workers)
    bars = []
    before: StoredAttempt | None = None
    for attempt, (ended, ending) in zip(attempts, ends(attempts, workers, alive, now), strict=True):
        is_again = before is not None and before.slot == attempt.slot
        bar = Bar(
            device=devices.get(attempt.worker_id, UNKNOWN),
            lane=0,
            trial=attempt.trial,
            slot=attempt.slot,
            attempt=attempt.attempt,
            began_s=attempt.began_at,
            ended_s=ended,
            ending=ending,
            is_takeover=is_again and before is not None and before.worker_id != attempt.worker_id,
        )
        bars.append((attempt.worker_id, bar))
        before = attempt
    used = {bar.device for _, bar in bars}
    there = [device for device in dict.fromkeys([*devices.values(), UNKNOWN]) if device in used]
    return _without_pauses(there, sorted(_in_lanes(bars), key=lambda bar: bar.began_s))


def _devices(workers: Sequence[StoredWorker]) -> dict[str, str]:
    """Worker → host and device, by host; cards of one name are numbered, in the order in which they came."""
    cards: dict[tuple[str, str], list[str | None]] = {}
    places = {}
    hosts = {worker.worker_id: host_and_pid(worker.worker_id)[0] for worker in workers}
    named = {(hosts[each.worker_id], each.device_uuid): each.device for each in workers if each.device != STARTING}
    for worker in sorted(workers, key=lambda each: each.started_at):
        host = hosts[worker.worker_id]
        is_named = worker.device != STARTING
        place = (host, worker.device if is_named else named.get((host, worker.device_uuid), STARTING))
        uuids = cards.setdefault(place, [])
        if worker.device_uuid not in uuids:
            uuids.append(worker.device_uuid)
        places[worker.worker_id] = (place, uuids.index(worker.device_uuid) + 1)
    return {
        name: f"{host}{f' #{number}' if len(cards[host, device]) > 1 else ''}, {device}"
        for name, ((host, device), number) in sorted(places.items(), key=lambda item: item[1])
    }


def _in_lanes(bars: Sequence[tuple[str, Bar]]) -> list[Bar]:
    """Workers that had a device at the same time have lanes of their own; one after the other they share it."""
    spans: dict[tuple[str, str], tuple[float, float]] = {}
    for worker, bar in bars:
        began, ended = spans.get((bar.device, worker), (bar.began_s, bar.ended_s))
        spans[bar.device, worker] = min(began, bar.began_s), max(ended, bar.ended_s)
    lanes: dict[tuple[str, str], int] = {}
    free: dict[str, list[float]] = {}
    for (device, worker), (began, ended) in sorted(spans.items(), key=lambda item: item[1]):
        until = free.setdefault(device, [])
        lane = next((lane for lane, end in enumerate(until) if end <= began), len(until))
        until[lane : lane + 1] = [ended]
        lanes[device, worker] = lane
    return [replace(bar, lane=lanes[bar.device, worker]) for worker, bar in bars]


def _without_pauses(devices: list[str], bars: list[Bar]) -> Timeline:
    times = sorted((bar.began_s, bar.ended_s) for bar in bars)
    first, until = times[0]
    gaps = []  # (begin, end) of each time in which nobody worked
    for began, ended in times:
        if began > until:
            gaps.append((until, began))
        until = max(until, ended)
    worked = until - first - sum(end - begin for begin, end in gaps)
    gaps = [(begin, end) for begin, end in gaps if end - begin > _LONG_PAUSE * worked]

    def net(time: float) -> float:
        return time - first - sum(min(end, time) - begin for begin, end in gaps if begin < time)

    shifted = [replace(bar, began_s=net(bar.began_s), ended_s=net(bar.ended_s)) for bar in bars]
    return Timeline(devices, shifted, first, [(net(begin), end - begin) for begin, end in gaps])
