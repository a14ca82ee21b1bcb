"""A trainer that hangs is distinguished from a slow one by the phase of its work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.bridge.protocol import Began, Done, Event, Phase, Progress, Ready
from hpsearch.bridge.silence import Silence
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.spec.limits import SilenceSpec
from hpsearch.trial import STARTING
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import Clock, MakeDemo, ScriptedTrainer, Starter, plays, report, steadily

LIMITS = SilenceSpec(starting_minutes=1, loading_minutes=6, training_minutes=3)
STEP = Progress(step=1, num_steps=9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("heard", "minutes", "doing"),
    [
        ([], 1, "starting"),
        ([Ready(device="a GPU")], 6, "loading"),
        ([Ready(device="a GPU"), Phase(name="encoding rows")], 6, "encoding rows"),
        ([Began()], 6, "the first step"),
        ([Began(), STEP], 3, "training"),
        ([STEP, report(1, 2.0)], 3, "training"),
        ([STEP, Phase(name="validating")], 6, "validating"),
        ([STEP, Phase(name="validating"), STEP], 3, "training"),
    ],
    ids=str,
)
def test_each_thing_that_it_does_has_its_limit(clock: Clock, heard: list[Event], minutes: float, doing: str) -> None:
    watch = Silence(LIMITS, clock, is_ready=False)
    for event in heard:
        clock.now += 1e6  # what is heard was said in time
        watch.heard(event)
    clock.now += 60 * minutes
    watch.check()
    clock.now += 0.1
    with pytest.raises(TrainerDied) as died:
        watch.check()
    assert died.value.how == f"silent for {minutes} minutes while {doing}"
    assert str(died.value).startswith("the trainer process hangs: ")
    assert not died.value.is_kill


def test_a_warm_trainer_has_started_already(clock: Clock) -> None:
    watch = Silence(LIMITS, clock, is_ready=True)
    clock.now += 60 * 6
    watch.check()
    clock.now += 0.1
    with pytest.raises(TrainerDied, match="silent for 6 minutes while loading"):
        watch.check()


def test_every_word_is_a_sign_of_life(clock: Clock) -> None:
    watch = Silence(LIMITS, clock, is_ready=True)
    for event in (STEP, STEP, report(1, 2.0), STEP, Done(clean=True)):
        watch.heard(event)
        clock.now += 60 * 2.9
        watch.check()


def test_a_trainer_that_hangs_is_ended_and_its_trial_goes_on_in_a_new_one(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)

    def hangs(_trainer: ScriptedTrainer, _folder: JobFolder) -> Iterator[Event | None]:
        yield Began()
        yield Progress(step=4, num_steps=9)
        while True:
            demo.clock.now += 60
            yield None

    start = plays(hangs, steadily(1.0))
    assert demo.run(start) is Step.FINISHED
    assert len(start.trainers) == 2
    assert (demo.leases[0].attempt, demo.leases[0].strikes) == (2, 0)
    assert "silent for 30 minutes while training" in demo.leases[0].reasons
    assert demo.states == ["COMPLETE"]


def test_a_trainer_that_never_starts_is_no_strike(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1, spec={"silence": {"starting_minutes": 2}})

    def hangs(_trainer: ScriptedTrainer, _folder: JobFolder) -> Iterator[Event | None]:
        while True:
            demo.clock.now += 60
            yield None

    def new() -> ScriptedTrainer:
        trainer = ScriptedTrainer(hangs)
        trainer.device = STARTING
        return trainer

    demo.worker(Starter(new)).step()
    assert (demo.leases[0].worker_id, demo.leases[0].strikes, demo.leases[0].reasons) == (None, 0, "[]")
    assert 120 < demo.clock.now - Clock.now < 360


def test_a_worker_that_slept_hears_first_what_was_said_meanwhile(make_demo: MakeDemo) -> None:
    """It was stopped for an hour, its trainer was not."""
    demo = make_demo(trials=1)

    def talks(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield STEP
        demo.clock.now += 3600
        yield STEP
        yield None
        yield from steadily(1.0)(trainer, folder)

    assert demo.run(plays(talks)) is Step.FINISHED
    assert demo.leases[0].attempt == 1
