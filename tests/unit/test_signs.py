"""Signs of life: what a worker learns when it reports what it does, and when it renews its lease."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from hpsearch.bridge.protocol import Event, Progress, Stop
from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import LeaseLost
from hpsearch.folders import JobFolder
from hpsearch.store import Activity, Lease
from hpsearch.trial import Outcome
from hpsearch.worker.endings import Step
from hpsearch.worker.signs import Signs
from tests.unit.outage_fixtures import Outage
from tests.unit.worker_fixtures import HERE, Demo, MakeDemo, Play, ScriptedTrainer, ending, nobody, plays, steadily

NEXT = "next:1:1.00"
STEP = Progress(step=1, num_steps=9)
TRAINING = Activity(doing="training")


def stopped_by(demo: Demo, *, now: bool) -> Play:
    """Somebody uses `hpsearch stop` while it trains."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield STEP
        demo.store.orders.stop(demo.study.study_id, now=now)
        demo.clock.now += 1
        yield STEP
        if now:
            pytest.fail("a worker that is to leave at once waits for this event")
        assert isinstance(trainer.told[-1], Stop)
        yield from ending(folder, Outcome.STOPPED)

    return play


@pytest.mark.parametrize("now", [False, True])
def test_a_stop_order_is_heard_in_the_middle_of_a_trial(make_demo: MakeDemo, now: bool) -> None:
    demo = make_demo(trials=1)
    start = plays(stopped_by(demo, now=now))
    assert demo.run(start) is Step.STOPPED
    assert start.trainers[0].ended
    assert (demo.states, demo.leases[0].worker_id) == (["RUNNING"], None)
    assert [trial.outcome for trial in demo.view.trials] == ["waiting"], "Optuna's word isn't what a person sees"
    assert demo.run(plays(steadily(1.0)), name=NEXT) is Step.FINISHED, "the order was not for a later worker"


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.FAILED])
def test_a_trial_that_is_given_back_keeps_the_progress_that_was_renewed(demo: Demo, outcome: Outcome) -> None:
    """By a stop, or because the device is set aside."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield STEP
        demo.clock.now += 10
        yield Progress(step=7, num_steps=9)
        yield from ending(folder, outcome, reason="No space left on device")

    lease = demo.claim("struck:1:1.00")
    assert lease is not None
    demo.store.leases.release(replace(lease, strikes=2, progress=3))
    assert demo.run(plays(play)) in (Step.STOPPED, Step.SET_ASIDE)
    assert (demo.leases[0].worker_id, demo.leases[0].progress, demo.leases[0].strikes) == (None, 7, 0)


def test_a_stop_order_is_heard_while_nothing_is_free(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)
    assert demo.claim("somebody:1:1.00") is not None
    rounds: list[float] = []

    class Watch(StopFlag):
        def wait(self, seconds: float) -> None:
            rounds.append(seconds)
            assert len(rounds) < 9, "nobody hears the order"
            demo.clock.now += 1
            demo.store.orders.stop(demo.study.study_id, now=False)

    assert demo.run(nobody, Watch()) is Step.STOPPED


def test_a_stop_that_becomes_urgent_is_heard_as_such(demo: Demo) -> None:
    stop = StopFlag()

    def play(_: ScriptedTrainer, _folder: JobFolder) -> Iterator[Event | None]:
        for now in (False, True):
            demo.store.orders.stop(demo.study.study_id, now=now)
            demo.clock.now += 1
            yield STEP
            assert (stop.requested, stop.urgent) == (True, now), "it leaves before this line"

    assert demo.run(plays(play), stop) is Step.STOPPED
    assert stop.urgent


def test_an_order_is_a_single_one_however_often_it_is_heard(demo: Demo) -> None:
    """The second stop is urgent: an order that is read twice must not become one."""
    stop = StopFlag()

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        demo.store.orders.stop(demo.study.study_id, now=False)
        for _ in range(4):
            demo.clock.now += 1
            yield STEP
        yield from ending(folder, Outcome.STOPPED)

    assert demo.run(plays(play), stop) is Step.STOPPED
    assert (stop.requested, stop.urgent) == (True, False)


def test_an_order_of_another_study_is_not_heard(demo: Demo) -> None:
    demo.store.workers.register(HERE, demo.study.study_id, "none")
    demo.store.orders.stop(demo.study.study_id + 1, now=True)
    assert not demo.store.orders.of(HERE).stop


def test_the_lease_is_renewed_as_soon_as_the_store_is_back(demo: Demo, outage: Outage) -> None:
    left: list[float] = []

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield None
        demo.expire()
        outage.is_down = True
        demo.clock.now += 10  # a renewal is due, and lost
        yield None
        outage.is_down = False
        demo.clock.now += 1
        yield None
        left.append(demo.seconds_left)
        yield from ending(folder, Outcome.COMPLETE, 2.0)

    demo.worker(plays(play)).step()
    assert outage.refused >= 1
    assert left[0] > 50


class SlowRelay:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Future[Any]]] = []

    def offer(self, question: Any) -> Future[Any]:
        self.asked.append((question, Future()))
        return self.asked[-1][1]

    def is_answered(self, answer: Future[Any], within_s: float) -> bool:
        assert within_s < 1
        return answer.done()

    def answer(self) -> None:
        question, answer = self.asked[-1]
        try:
            answer.set_result(question())
        except LeaseLost as lost:
            answer.set_exception(lost)


@pytest.fixture
def slow(demo: Demo) -> tuple[Signs, SlowRelay]:
    relay: Any = SlowRelay()
    look = lambda activity: (activity, "none")  # noqa: E731
    return Signs(demo.store, HERE, relay, StopFlag(), look, demo.clock), relay


def lost(demo: Demo) -> Lease:
    lease = demo.claim(HERE)
    assert lease is not None
    demo.expire()
    assert demo.claim(NEXT) is not None
    return lease


def test_one_sign_is_given_at_a_time(demo: Demo, slow: tuple[Signs, SlowRelay]) -> None:
    signs, relay = slow
    for _ in range(3):
        demo.clock.now += 100
        signs.give(TRAINING)
    assert len(relay.asked) == 1
    relay.answer()
    demo.clock.now += 1
    signs.give(TRAINING)
    assert len(relay.asked) == 2


@pytest.mark.parametrize(("at_work", "seconds"), [(1, 1), (64, 1), (256, 4), (4000, 15)])
def test_many_workers_give_no_more_signs_than_64(
    demo: Demo, slow: tuple[Signs, SlowRelay], at_work: int, seconds: int
) -> None:
    signs, relay = slow
    lease = demo.claim(HERE)
    assert lease is not None
    signs.renewed(replace(lease, at_work=at_work))
    given = []
    for second in range(16):
        before = len(relay.asked)
        signs.give(TRAINING)
        if len(relay.asked) > before:
            given.append(second)
            relay.answer()
        demo.clock.now += 1
    assert given == list(range(0, 16, seconds))


def test_a_lease_that_is_lost_is_heard_later(demo: Demo, slow: tuple[Signs, SlowRelay]) -> None:
    signs, relay = slow
    lease = lost(demo)
    signs.give(TRAINING, lease)
    relay.answer()
    with pytest.raises(LeaseLost):
        signs.give(TRAINING, lease)


@pytest.mark.parametrize("does", ["has another trial", "waits for one"])
def test_the_loss_of_an_earlier_lease_costs_no_other_trial(
    demo: Demo, slow: tuple[Signs, SlowRelay], does: str
) -> None:
    """The answer comes when the worker has dropped that trial and gone on."""
    signs, relay = slow
    signs.give(TRAINING, lost(demo))
    relay.answer()
    signs.give(TRAINING, demo.claim(HERE) if does == "has another trial" else None)
    demo.clock.now += 1
    signs.give(TRAINING)
    assert len(relay.asked) == 2
