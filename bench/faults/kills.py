"""Kills: SIGKILL to a random worker or trainer at random moments, and signals to their whole groups."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from bench.faults.scene import Scene, Stuck, noted_stuck, scene, until
from bench.faults.tally import Tally
from hpsearch.folders import JobFolder
from hpsearch.worker.failures import MAX_STRIKES

NUM_WORKERS = 3
_TRIALS = 24
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def kills(url: str, store: str, folder: Path, count: int, seed: int, *, mean_s: float = 0.3) -> Tally:
    """`count` kills, in as many studies as it takes; a killed process is replaced at once.

    Most hit where something can be lost, a worker whose trainer trains or the trainer itself; the others a worker that
    starts, is between two trials, or whose trainer starts. No trial is killed three times in a row before it got
    further: that is the one case in which it must FAIL.
    """
    tally, random = Tally("SIGKILL of a worker or trainer", store, seed), Random(seed)
    hit: Counter[str] = Counter()
    while tally.times < count:
        num_trials = min(_TRIALS, 2 + (count - tally.times) // 3)
        with scene(url, folder / f"{tally.times:04d}", num_trials) as play:
            for _ in range(NUM_WORKERS):
                play.start()
            with noted_stuck(tally, play):
                _storm(play, tally, random, count, mean_s, hit)
                play.wait_for_all()
            tally.dead += sum(not each.is_killed and each.process.exitcode != 0 for each in play.everyone)
            play.verdict(tally)
    tally.notes.append(", ".join(f"{who} {times}" for who, times in sorted(hit.items())))
    return tally


def _storm(play: Scene, tally: Tally, random: Random, count: int, mean_s: float, hit: Counter[str]) -> None:
    started = time.monotonic()
    while not play.is_finished or any(member.is_killed for member in play.members):
        if time.monotonic() - started > 600:
            raise Stuck("the study never ends")
        time.sleep(min(3 * mean_s, random.expovariate(1 / mean_s)))
        play.replace_the_killed()
        if tally.times < count and (who := _kill_one(play, random)):
            tally.times += 1
            hit[who] += 1


def _kill_one(play: Scene, random: Random) -> str | None:
    """Which process was killed; None if there was none."""
    when = random.choices(*zip(*_MOMENTS.items(), strict=True))[0]
    there = [(member, trainer) for member in play.alive for trainer in (member.trainers() or [None])[:1]]
    chosen = [each for each in there if _moment(play, each[1]) == when]
    if not chosen:
        return None
    member, trainer = random.choice(chosen)
    if trainer is None or random.random() < 0.5:
        member.kill()
        return f"workers {when}"
    try:
        os.kill(trainer, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return f"trainers {when}"


_MOMENTS = {"in training": 0.8, "before it began": 0.1, "without a trainer": 0.1}


def _moment(play: Scene, trainer: int | None) -> str:
    if trainer is None:
        return "without a trainer"
    attempts = [folder for pid, folder in play.attempts_begun() if pid == trainer]
    if not attempts:
        return "before it began"
    return "in training" if _strikes_by_now(play, attempts[-1]) < MAX_STRIKES else "spared"


def _strikes_by_now(play: Scene, attempt: Path) -> int:
    """How many of the trial's attempts in a row got no further, were this one killed now."""
    strikes = progress = 0
    for _, folder in play.attempts_begun():
        if folder.parent == attempt.parent:
            step = JobFolder(folder).last_step()
            strikes, progress = (0, step) if step > progress else (strikes + 1, progress)
    return strikes


def signals(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` stops: SIGTERM, SIGHUP or SIGINT to a worker's group, and half of the time to its trainer's as well, as
    a control group is signalled. One in five is sent twice: that one gives up what came after its last checkpoint."""
    tally, random = Tally("SIGTERM, SIGHUP, SIGINT to groups", store, seed), Random(seed)
    tally.other = {"not given back": 0, "steps done again": 0, "stops not heard": 0}
    budget = {"max_steps": 150, "reports": 5}
    while tally.times < count:
        with scene(
            url, folder / f"{tally.times:04d}", max(2, min(12, (count - tally.times) // 3)), budget=budget
        ) as play:
            for _ in range(NUM_WORKERS):
                play.start()
            twice: set[int] = set()
            with noted_stuck(tally, play):
                while tally.times < count and not play.is_finished:
                    time.sleep(random.uniform(0.1, 1.2))
                    if play.alive:
                        _stop_one(play, random, tally, twice)
                play.wait_for_all()
            tally.dead += sum(each.process.exitcode not in (0, 130) for each in play.everyone)
            tally.other["not given back"] += sum(slot.deaths + slot.strikes for slot in play.slots)
            tally.other["steps done again"] += _done_again(play, twice)
            play.verdict(tally)
    return tally


def _stop_one(play: Scene, random: Random, tally: Tally, twice: set[int]) -> None:
    member = random.choice(play.alive)
    number = random.choice((signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    trainers = member.trainers()
    before = play.steps_done(trainers)
    member.signal_group(number)
    for pid in trainers if random.random() < 0.5 else []:
        with suppress(ProcessLookupError):
            os.killpg(pid, number)
    if random.random() < 0.2:
        twice.add(member.pid)
        time.sleep(0.02)
        member.signal_group(number)
    until(lambda: not member.is_alive, what="a worker that was asked to stop never leaves")
    after = play.steps_done(trainers)
    tally.other["stops not heard"] += sum(after[pid] - before.get(pid, after[pid]) > 100 for pid in after)
    tally.times += 1
    play.members.remove(member)
    play.start()


def _done_again(play: Scene, twice: set[int]) -> int:
    """Optimizer steps that were done more than once, where no second signal asked for it."""
    done: dict[Path, set[int]] = {}
    again = 0
    for _, worker_pid, path in play.diary_lines():
        steps = {point.step for point in JobFolder(path).read_history()}
        known = done.setdefault(path.parent, set())
        again += len(known & steps)
        known |= set() if worker_pid in twice else steps
    return again
