"""A trial that changes hands: its worker is asked to stop, is killed, or is overtaken by another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.bridge.protocol import Began, Continue, Event, Phase, Progress, Run, Stop
from hpsearch.bridge.stopping import StopFlag
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome, Report
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import (
    Demo,
    MakeDemo,
    ScriptedTrainer,
    ending,
    nobody,
    plays,
    report,
    steadily,
)

NEXT = "next:1:1.00"
STEP = Progress(step=1, num_steps=9)


def test_a_stop_saves_the_trial_and_the_next_worker_continues_it(demo: Demo) -> None:
    stop = StopFlag()

    def until_stopped(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield report(1, 5.0)
        stop.ask()
        yield STEP
        yield STEP
        assert trainer.told == [Run(folder=folder.path), Continue(), Stop()]
        yield from ending(folder, Outcome.STOPPED, 5.0)

    def continued(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield Began(reports=[Report(step=1, loss=5.0)])
        yield report(2, 4.0)
        yield from ending(folder, Outcome.COMPLETE, 5.0, 4.0)

    start = plays(until_stopped)
    assert demo.run(start, stop) is Step.STOPPED
    assert start.trainers[0].ended
    assert demo.states == ["RUNNING"]
    assert [(lease.worker_id, lease.expires_at, lease.finished) for lease in demo.leases] == [(None, 0.0, False)]

    assert demo.run(plays(continued, steadily(1.0)), name=NEXT) is Step.FINISHED
    assert demo.states == ["COMPLETE"] * 3
    assert demo.trials[0].intermediate_values == {1: 5.0, 2: 4.0}
    assert [trial.user_attrs["attempts"] for trial in demo.trials] == [2, 1, 1]
    assert [(lease.attempt, lease.deaths) for lease in demo.leases] == [(2, 0), *[(1, 0)] * 2]


def test_a_trial_that_reaches_its_end_in_spite_of_a_stop_is_told(demo: Demo) -> None:
    stop = StopFlag()

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        stop.ask()
        yield STEP
        yield from ending(folder, Outcome.COMPLETE, 4.0)

    assert demo.run(plays(play), stop) is Step.STOPPED
    assert demo.states == ["COMPLETE"]


def test_a_second_stop_does_not_wait_for_the_checkpoint(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)
    stop = StopFlag()

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        stop.ask()
        yield STEP
        stop.ask()
        yield STEP
        pytest.fail(f"{folder.path}: nobody waits for this event")

    start = plays(play)
    assert demo.run(start, stop) is Step.STOPPED
    assert start.trainers[0].ended
    assert demo.states == ["RUNNING"]
    assert demo.run(plays(steadily(1.0)), name=NEXT) is Step.FINISHED
    assert demo.states == ["COMPLETE"]
    assert (demo.leases[0].attempt, demo.leases[0].deaths) == (2, 0)


def test_a_worker_that_was_told_to_stop_takes_no_trial(demo: Demo) -> None:
    stop = StopFlag()
    stop.ask()
    assert demo.run(nobody, stop) is Step.STOPPED
    assert demo.leases == []


@pytest.mark.parametrize("noticed_by", ["a report", "a renewal", "the result"])
def test_nothing_is_told_once_another_worker_has_taken_over(make_demo: MakeDemo, noticed_by: str) -> None:
    demo = make_demo(trials=2)

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield report(1, 5.0)
        demo.expire()
        taken_over = demo.claim(NEXT)
        assert taken_over is not None
        assert taken_over.slot == 0
        if noticed_by == "a report":
            yield report(2, 4.0)
        if noticed_by == "a renewal":
            demo.clock.now += 10
            yield STEP
        if noticed_by == "the result":
            yield from ending(folder, Outcome.COMPLETE, 5.0, 4.0)
        pytest.fail("the worker goes on as if nothing had happened")

    start = plays(play, steadily(1.0))
    worker = demo.worker(start)
    assert worker.step() is Step.WORKED
    assert start.trainers[0].ended
    assert demo.states == ["RUNNING"]
    assert demo.trials[0].intermediate_values == {1: 5.0}
    assert (demo.leases[0].worker_id, demo.leases[0].result) == (NEXT, None)

    assert [worker.step(), worker.step()] == [Step.WORKED, Step.NOTHING_FREE]
    assert demo.states == ["RUNNING", "COMPLETE"]


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), OSError(28, "No space left on device")])
def test_a_worker_that_stumbles_over_what_is_no_longer_its_own_goes_on(make_demo: MakeDemo, error: Exception) -> None:
    demo = make_demo(trials=2)

    def play(*_: object) -> Iterator[Event | None]:
        yield report(1, 5.0)
        demo.expire()
        assert demo.claim(NEXT) is not None
        raise error

    worker = demo.worker(plays(play, steadily(1.0)))
    assert [worker.step(), worker.step()] == [Step.WORKED, Step.WORKED]
    assert demo.states == ["RUNNING", "COMPLETE"]
    assert (demo.leases[0].worker_id, demo.leases[0].stumbles) == (NEXT, 0)


class Patience(StopFlag):
    """While the worker waits, another worker's lease runs out."""

    def __init__(self, demo: Demo) -> None:
        super().__init__()
        self._demo = demo
        self.doing: list[str] = []

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.doing += [worker.activity.doing for worker in self._demo.store.workers.of(self._demo.study.study_id)]
        self._demo.expire()


def test_a_worker_waits_for_the_last_trials_of_others(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)
    assert demo.claim("somebody:1:1.00") is not None
    stop = Patience(demo)
    assert demo.run(plays(steadily(1.0)), stop) is Step.FINISHED
    assert stop.doing == ["waiting for other workers' trials"]
    assert (demo.leases[0].attempt, demo.leases[0].deaths) == (2, 1)


def test_a_trial_is_not_stopped_by_events_that_ask_nothing(demo: Demo) -> None:
    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield from (Phase(name="loading"), STEP, None)
        assert trainer.told == [Run(folder=folder.path)]
        yield from ending(folder, Outcome.COMPLETE, 1.0)

    demo.worker(plays(play)).step()
    assert demo.states == ["COMPLETE"]
