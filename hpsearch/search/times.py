"""When each attempt of a trial ended, and how long the attempts of each trial took together: pauses between them are
nobody's work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from hpsearch.store import StoredWorker
from hpsearch.store.attempts import StoredAttempt

RUNNING = "running"
SILENT = "ended without a word"
"""Its worker was killed, or could not reach the store any more."""


def ends(
    attempts: Sequence[StoredAttempt], workers: Sequence[StoredWorker], live: Collection[str], now: float
) -> list[tuple[float, str]]:
    """When and how each ended. `attempts` by slot and attempt; `live`: ids of the workers that are there."""
    known = {worker.worker_id: worker for worker in workers}
    found = []
    for position, attempt in enumerate(attempts):
        after = attempts[position + 1] if position + 1 < len(attempts) else None
        after = after if after and after.slot == attempt.slot else None
        ended, ending = _end(attempt, after, known.get(attempt.worker_id), now, attempt.worker_id in live)
        found.append((max(attempt.began_at, ended), ending))
    return found


def _end(
    attempt: StoredAttempt, after: StoredAttempt | None, worker: StoredWorker | None, now: float, is_alive: bool
) -> tuple[float, str]:
    """Of one without a word the end is its worker's last sign of life, or the next claim."""
    if attempt.ended_at is not None and attempt.ending is not None:
        return attempt.ended_at, attempt.ending
    if after is None and is_alive:
        return now, RUNNING
    until = now if after is None else after.began_at
    return (until if worker is None else min(until, worker.beat_at)), SILENT


def seconds_of_trials(
    attempts: Sequence[StoredAttempt], workers: Sequence[StoredWorker], live: Collection[str], now: float
) -> dict[int, float]:
    """Trial → the time of its attempts. A trial from before attempts were kept has none."""
    seconds: defaultdict[int, float] = defaultdict(float)
    for attempt, (ended, _) in zip(attempts, ends(attempts, workers, live, now), strict=True):
        if attempt.trial is not None:
            seconds[attempt.trial] += ended - attempt.began_at
    return dict(seconds)
