"""Kills: SIGKILL to a random worker or trainer at random moments, and signals to their whole groups."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from bench.faults.scene import Scene, Stuck, noted_stuck, scene
from bench.faults.tally import Tally

NUM_WORKERS = 3
_TRIALS = 24
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def kills(url: str, store: str, folder: Path, count: int, seed: int, *, mean_s: float = 0.5) -> Tally:
    """`count` kills, in as many studies as it takes; who is killed is replaced at once."""
    tally, random = Tally("SIGKILL of a worker or trainer", store, seed), Random(seed)
    while tally.times < count:
        num_trials = min(_TRIALS, 2 + (count - tally.times) // 3)
        with scene(url, folder / f"{tally.times:04d}", num_trials) as play:
            for _ in range(NUM_WORKERS):
                play.start()
            with noted_stuck(tally, play):
                _storm(play, tally, random, count, mean_s)
                play.wait_for_all()
            tally.dead += sum(not each.is_killed and each.process.exitcode != 0 for each in play.everyone)
            play.verdict(tally)
    return tally


def _storm(play: Scene, tally: Tally, random: Random, count: int, mean_s: float) -> None:
    started = time.monotonic()
    while not play.is_finished or any(member.is_killed for member in play.members):
        if time.monotonic() - started > 600:
            raise Stuck("the study never ends")
        time.sleep(min(3 * mean_s, random.expovariate(1 / mean_s)))
        play.replace_the_killed()
        if tally.times < count and _kill_one(play, random):
            tally.times += 1


def _kill_one(play: Scene, random: Random) -> bool:
    """A worker, or its trainer where it has one."""
    if not play.alive:
        return False
    member = random.choice(play.alive)
    trainers = member.trainers()
    if trainers and random.random() < 0.5:
        with suppress(ProcessLookupError):
            os.kill(random.choice(trainers), signal.SIGKILL)
            return True
        return False
    member.kill()
    return True
