"""Crowds: many workers at once, restarted again and again; and trials that somebody ends from outside."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random

import optuna
from optuna.trial import TrialState

from bench.faults import worker
from bench.faults.scene import noted_stuck, scene, until
from bench.faults.tally import Tally

NUM_RESTARTS = 5


def many(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` workers for about three trials each, all of them ended and restarted five times: killed, or asked to
    stop. Killed twice only: a third kill in a row without progress makes a trial FAIL, as it must."""
    target = 25 * count // 8  # 200 trials for 64 workers
    tally = Tally(f"{count} workers, {target} trials, restarted {NUM_RESTARTS} times", store, seed)
    with scene(url, folder, target, {worker.WITHOUT_PROCESS: "1"}) as play, noted_stuck(tally, play):
        for restart in range(NUM_RESTARTS + 1):
            for _ in range(count):
                play.start()
            if restart == NUM_RESTARTS:
                break
            goal = (restart + 1) * target // (NUM_RESTARTS + 2)
            until(lambda: play.slots_finished >= goal, 600, "the crowd stands still")  # noqa: B023
            for member in play.alive:
                member.kill() if restart % 2 else member.signal(signal.SIGTERM)
            play.wait_for_all()
            play.members.clear()
            tally.times += 1
        until(lambda: not play.alive, 600, "the crowd never ends")
        left = (0, 130, -signal.SIGTERM)  # the last: before it listens
        tally.dead += sum(not each.is_killed and each.process.exitcode not in left for each in play.everyone)
        play.verdict(tally)
    return tally


def ended_outside(url: str, store: str, folder: Path, count: int, seed: int) -> Tally:
    """`count` running trials are ended by `study.tell`, as the dashboard does: the slot closes, the workers go on."""
    tally, random = Tally("running trial ended from outside", store, seed), Random(seed)
    tally.other = {"changed": 0}
    budget = {"max_steps": 50, "reports": 5}
    with scene(url, folder, 2 * count + 2, budget=budget) as play, noted_stuck(tally, play):
        study = optuna.load_study(study_name=play.study.spec.study, storage=play.store.optuna)
        for _ in range(3):
            play.start()
        ended: dict[int, TrialState] = {}
        while len(ended) < count:
            until(lambda: [trial for trial in play.trials if trial.state is TrialState.RUNNING], what="nobody begins")
            time.sleep(random.uniform(0, 0.5))
            running = [trial.number for trial in play.trials if trial.state is TrialState.RUNNING]
            if not running:
                continue
            number, state = random.choice(running), random.choice([TrialState.FAIL, TrialState.PRUNED])
            if study.tell(number, state=state, skip_if_finished=True).state is state:
                ended[number] = state
        play.wait_for_all()
        tally.times += len(ended)
        tally.other["changed"] += sum(play.trials[number].state is not state for number, state in ended.items())
        tally.dead += sum(member.process.exitcode != 0 for member in play.everyone)
        play.verdict(tally, ended=set(ended))
    return tally
