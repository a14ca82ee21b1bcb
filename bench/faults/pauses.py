"""Pauses: a worker is stopped by SIGSTOP past its lease, another one takes over, then it wakes up and continues."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.pace import PACE
from bench.faults.scene import Member, Scene, Stuck, comes, noted_stuck, scene, until
from bench.faults.tally import Tally

_FASTER = "30"
"""Leases last 2 s."""


def pauses(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` pauses. In turns it wakes up while the other one works on its trial, and after the study is finished;
    its trainer is paused with it half of the time."""
    tally, random = Tally("SIGSTOP of a worker past its lease", store, seed), Random(seed)
    tally.other = {"writes accepted": 0, "files touched": 0}
    for number in range(count):
        with scene(url, folder / f"{number:03d}", 2, {PACE: _FASTER}) as play, noted_stuck(tally, play):
            _pause(play, tally, store, wakes_late=number % 2 == 1, with_trainer=random.random() < 0.5, random=random)
            tally.times += 1
            tally.dead += sum(member.process.exitcode != 0 for member in play.everyone)
            play.verdict(tally)
    return tally


def _pause(play: Scene, tally: Tally, store: str, *, wakes_late: bool, with_trainer: bool, random: Random) -> None:
    paused = play.start()
    until(lambda: _steps(play, paused) > random.randrange(20), what="the first worker never trains")
    stopped = [paused.pid, *(paused.trainers() if with_trainer else [])]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    other = play.start()
    is_taken = comes(lambda: play.slots[0].attempt > 1, 20)
    if not is_taken and store == "sqlite":  # it holds SQLite's write lock: nobody can take over before it wakes up
        tally.notes.append("stopped within a transaction of SQLite's, which holds everyone up and loses nothing")
    elif not is_taken:
        raise Stuck("nobody takes over")
    wakes_late = wakes_late and is_taken
    if wakes_late:
        until(lambda: not other.is_alive, what="the second worker never finishes")
        before = _contents(play), play.trials, play.slots
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    play.wait_for_all()
    if wakes_late:
        after = _contents(play), play.trials, play.slots
        tally.other["files touched"] += len(before[0].items() ^ after[0].items())
        tally.other["writes accepted"] += before[1:] != after[1:]


def _steps(play: Scene, member: Member) -> int:
    return max(play.last_steps(member.trainers()).values(), default=-1)


def _contents(play: Scene) -> dict[Path, Any]:
    """Every file of the trials, except those of the first attempt at the first one: the paused worker's own."""
    own = play.storage.trial(play.study.uid, 0).attempt(1).path
    files = [file for file in (play.storage.path / "trials").rglob("*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files if not file.is_relative_to(own)}
