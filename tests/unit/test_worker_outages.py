"""The store out of reach: a training step never waits for it, and what could not be stored is stored later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from hpsearch.bridge.protocol import Continue, Event, Progress, Prune, Run
from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import StoreUnreachable
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome
from hpsearch.worker.endings import Step
from hpsearch.worker.worker import Worker
from tests.unit.outage_fixtures import Outage
from tests.unit.worker_fixtures import HERE, Demo, MakeDemo, ScriptedTrainer, ending, nobody, plays, report, steadily

Sleep = Callable[[Callable[[], Any]], list[float]]


@pytest.fixture
def between_tries(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    """Does something instead of sleeping between two tries; gives the list of the seconds that would be slept."""

    def install(do: Callable[[], Any]) -> list[float]:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            do()

        monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(StopFlag, "wait", lambda _, seconds: sleep(seconds))
        return slept

    return install


def sent_in_order(demo: Demo) -> list[int]:
    with demo.store.optuna.engine.begin() as connection:
        rows = connection.execute(
            text("SELECT step FROM trial_intermediate_values ORDER BY trial_intermediate_value_id")
        )
        return list(rows.scalars())


def test_reports_are_kept_in_an_outage_and_sent_in_order(demo: Demo, outage: Outage) -> None:

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield report(1, 4.0)
        outage.is_down = True
        demo.clock.now += 10  # a beat and a renewal are due too
        yield report(2, 3.0)
        yield report(3, 2.0)
        yield Progress(step=1, num_steps=9)
        assert trainer.told == [Run(folder=folder.path), Continue(), Continue(), Continue()]
        outage.is_down = False
        assert demo.trials[0].intermediate_values == {1: 4.0}
        yield report(4, 1.0)
        assert demo.trials[0].intermediate_values == {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}
        yield from ending(folder, Outcome.COMPLETE, 4.0, 3.0, 2.0, 1.0)

    assert demo.worker(plays(play)).step() is Step.WORKED
    assert outage.refused >= 3
    assert sent_in_order(demo) == [1, 2, 3, 4]
    assert demo.states == ["COMPLETE"]


def test_the_pruners_word_is_on_the_last_report_after_an_outage(make_demo: MakeDemo, outage: Outage) -> None:
    demo = make_demo(pruner={"name": "median", "startup_trials": 1, "warmup_reports": 1})
    told: list[object] = []

    def bad(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        outage.is_down = True
        yield report(1, 9.0)
        outage.is_down = False
        yield report(2, 9.0)
        told.extend(trainer.told[-2:])
        yield from ending(folder, Outcome.PRUNED, 9.0, 9.0)

    worker = demo.worker(plays(steadily(3.0, 2.0, 1.0), bad))
    worker.step()
    worker.step()
    assert told == [Continue(), Prune()]
    assert demo.states == ["COMPLETE", "PRUNED"]


def test_the_end_of_a_trial_is_told_after_an_outage(demo: Demo, outage: Outage, between_tries: Sleep) -> None:
    slept = between_tries(lambda: setattr(outage, "is_down", len(slept) < 3))

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        outage.is_down = True
        yield report(1, 4.0)
        yield from ending(folder, Outcome.COMPLETE, 4.0)

    assert demo.worker(plays(play)).step() is Step.WORKED
    assert len(slept) == 3
    assert all(0 <= seconds <= 15 for seconds in slept)
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].intermediate_values == {1: 4.0}


def test_a_worker_waits_for_a_store_out_of_reach(
    make_demo: MakeDemo, outage: Outage, between_tries: Sleep, caplog: pytest.LogCaptureFixture
) -> None:
    demo = make_demo(trials=1)
    worker = demo.worker(plays(steadily(1.0)))
    outage.is_down = True
    slept = between_tries(lambda: setattr(outage, "is_down", False))
    assert worker.run() is Step.FINISHED
    assert len(slept) == 1
    assert demo.states == ["COMPLETE"]
    (said,) = [message for message in caplog.messages if "reached" in message]
    assert re.fullmatch(r"the store \S+ can't be reached: the server closed .*; trying again in \d+\.\d s", said)


def test_an_outage_without_end_ends_the_worker(demo: Demo, outage: Outage) -> None:

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield report(1, 4.0)
        outage.is_down = True
        yield from ending(folder, Outcome.COMPLETE, 4.0)

    start = plays(play)
    with pytest.raises(StoreUnreachable, match=r"hpsearch\.db can't be reached: the server closed the connection"):
        Worker(demo.study, demo.store, HERE, start, StopFlag(), demo.clock, wait_limit_s=0.0).run()
    assert start.trainers[0].ended
    outage.is_down = False
    assert demo.states == ["RUNNING"]


def test_reports_that_were_kept_for_a_lost_trial_do_not_land_in_another_one(demo: Demo, outage: Outage) -> None:

    def overtaken(*_: object) -> Iterator[Event | None]:
        outage.is_down = True
        yield report(1, 77.0)
        outage.is_down = False
        demo.expire()
        assert demo.claim("thief:1:1.00") is not None
        demo.clock.now += 10
        yield None

    worker = demo.worker(plays(overtaken, steadily(2.0)))
    assert [worker.step(), worker.step()] == [Step.WORKED, Step.WORKED]
    assert demo.states == ["RUNNING", "COMPLETE"]
    assert [trial.intermediate_values for trial in demo.trials] == [{}, {1: 2.0}]


def test_a_stop_is_heard_while_the_store_is_out_of_reach(demo: Demo, outage: Outage, between_tries: Sleep) -> None:
    stop = StopFlag()

    def ask() -> None:
        stop.ask()
        outage.is_down = len(slept) < 20

    worker = demo.worker(nobody, stop)
    outage.is_down = True
    slept = between_tries(ask)
    with suppress(StoreUnreachable):
        assert worker.run() is Step.STOPPED
    assert len(slept) <= 2


def test_reports_that_were_kept_are_sent_when_a_trial_is_given_back(demo: Demo, outage: Outage) -> None:
    stop = StopFlag()

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        outage.is_down = True
        yield report(1, 4.0)
        outage.is_down = False
        stop.ask()
        yield from ending(folder, Outcome.STOPPED, 4.0)

    assert demo.run(plays(play), stop) is Step.STOPPED
    assert demo.trials[0].intermediate_values == {1: 4.0}
