"""A trial that changes hands: its worker is asked to stop, is killed, or is overtaken by another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.bridge.fake import FakeTrainer
from hpsearch.bridge.protocol import Checkpoint, Continue, Event, Phase, Progress, Run
from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.worker import Step
from tests.unit.worker_fixtures import (
    Demo,
    Killed,
    MakeDemo,
    Play,
    ScriptedTrainer,
    demo,
    ending,
    make_demo,
    nobody,
    plays,
    report,
    steadily,
)

__all__ = ["demo", "make_demo"]

NEXT = "next:1:1.00"
STEP = Progress(step=1, num_steps=9)


def test_a_stop_saves_the_trial_and_the_next_worker_continues_it(demo: Demo) -> None:
    stop = StopFlag()

    def until_stopped(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield report(1, 5.0)
        stop.ask()
        yield STEP
        yield STEP
        assert trainer.told == [Run(folder=folder.path), Continue(), Checkpoint()]
        yield from ending(folder, Outcome.STOPPED, 5.0)

    def continued(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
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


def killed_after(*losses: float, outcome: Outcome | None = None) -> Play:
    """A worker that is killed after these reports, and after the result was written where there is an outcome."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        for step, loss in enumerate(losses, start=1):
            yield report(step, loss)
        if outcome is not None:
            next(ending(folder, outcome, *losses))
        raise Killed

    return play


def test_a_result_that_a_killed_worker_left_behind_is_told_without_training_again(demo: Demo) -> None:
    demo.kill(demo.worker(plays(killed_after(3.0, 2.0, outcome=Outcome.COMPLETE))))
    assert demo.states == ["RUNNING"]
    assert demo.worker(nobody, name=NEXT).step() is Step.WORKED
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].value == 2.0
    assert demo.trials[0].intermediate_values == {1: 3.0, 2: 2.0}
    assert (demo.leases[0].attempt, demo.leases[0].deaths, demo.leases[0].finished) == (2, 1, True)


def test_a_result_that_was_stored_but_not_told_is_told_without_its_folder(demo: Demo) -> None:
    lease = demo.claim("somebody:1:1.00")
    assert lease is not None
    demo.store.leases.store_result(lease, TrialResult(outcome=Outcome.FAILED, reason="Bus error").model_dump_json())
    demo.expire()
    assert demo.worker(nobody).step() is Step.WORKED
    assert demo.states == ["FAIL"]
    assert demo.trials[0].user_attrs["reason"] == "Bus error"


@pytest.mark.parametrize("outcome", [None, Outcome.STOPPED])
def test_a_killed_workers_trial_is_trained_on_in_its_folder(demo: Demo, outcome: Outcome | None) -> None:
    found: list[JobFolder] = []

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        found.append(folder)
        yield report(2, 2.0)
        yield from ending(folder, Outcome.COMPLETE, 3.0, 2.0)

    demo.kill(demo.worker(plays(killed_after(3.0, outcome=outcome))))
    (demo.folder.path / "kept").touch()
    demo.worker(plays(play), name=NEXT).step()
    assert (found[0].path / "kept").exists()
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].intermediate_values == {1: 3.0, 2: 2.0}


def stale_folder(demo: Demo, learning_rate: float) -> None:
    """A complete trial of an earlier study of the same name, in the folder of the first trial."""
    demo.folder.prepare(demo.study.trial_config(0, {"training.learning_rate": learning_rate, "lora.r": 8}))
    demo.folder.write_result(TrialResult(outcome=Outcome.COMPLETE, reports=[{"step": 1, "loss": 0.001}]))  # type: ignore[list-item]
    (demo.folder.path / "stale").touch()


def test_an_earlier_studys_folder_is_cleared_and_its_result_forgotten(demo: Demo) -> None:
    demo.enqueue({"training.learning_rate": 1e-4, "lora.r": 8})
    stale_folder(demo, 1e-4)
    demo.worker(plays(steadily(2.0))).step()
    assert demo.trials[0].value == 2.0
    assert not (demo.folder.path / "stale").exists()


def test_another_trials_folder_is_cleared_in_a_later_attempt_too(demo: Demo) -> None:
    demo.kill(demo.worker(plays(killed_after(3.0))))
    stale_folder(demo, 9e-4)
    demo.worker(plays(steadily(2.0)), name=NEXT).step()
    assert demo.trials[0].value == 2.0
    assert not (demo.folder.path / "stale").exists()


def test_a_trial_that_killed_three_workers_is_given_up(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=2)
    killing = plays(killed_after(3.0))
    for number in range(3):
        demo.kill(demo.worker(killing, name=f"victim-{number}:1:1.00"))
        killing.trainers[-1].end()
    assert demo.states == ["RUNNING"]
    assert demo.worker(nobody, name=NEXT).step() is Step.WORKED
    assert demo.states == ["FAIL"]
    assert demo.trials[0].user_attrs["reason"] == "3 workers died while they ran it"
    assert demo.run(plays(steadily(1.0)), name="last:1:1.00") is Step.FINISHED
    assert demo.states == ["FAIL", "COMPLETE"]


def test_a_dead_trainer_is_no_dead_worker(demo: Demo) -> None:
    def dies(_: object) -> list[float]:
        raise TrainerDied("signal 9")

    assert demo.run(lambda: FakeTrainer(dies)) is Step.FINISHED
    assert demo.states == ["FAIL"] * 3
    assert [lease.deaths for lease in demo.leases] == [0] * 3


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
