"""A worker that is killed between its claim and its trainer's first word: as if it had never been there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from hpsearch.bridge.protocol import Began, Event, Progress
from hpsearch.folders import JobFolder
from hpsearch.store.workers import worker_id_of
from hpsearch.trial import Outcome
from tests.unit.worker_fixtures import Demo, Killed, MakeDemo, ScriptedTrainer, ends, plays, steadily


@pytest.fixture
def dead() -> str:
    """A worker that certainly is: its process ran on this host."""
    with subprocess.Popen(["sleep", "60"]) as process:
        worker_id = worker_id_of(process.pid)
        process.kill()
    return worker_id


def killed_in_training(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
    del folder
    yield Began()
    yield Progress(step=1, num_steps=9)
    raise Killed


def killed_as_it_claims(demo: Demo, dead: str) -> None:
    demo.expire()
    lease = demo.store.leases.claim(demo.study.study_id, dead, 60.0)
    assert lease is not None
    assert lease.slot == 0


def test_an_earlier_attempt_is_not_counted_for_it(make_demo: MakeDemo, dead: str) -> None:
    demo = make_demo(trials=1)
    killing = plays(killed_in_training)
    for _ in range(3):  # the first got as far as nobody before
        demo.kill(demo.worker(killing, name=dead))
        killing.trainers[-1].end()
    for _ in range(3):
        killed_as_it_claims(demo, dead)
    strikes: list[int] = []

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        strikes.append(demo.leases[0].strikes)
        yield from steadily(1.0)(trainer, folder)

    demo.worker(plays(play)).step()
    assert demo.states == ["COMPLETE"]
    assert strikes == [1]


def test_an_attempt_that_never_began_is_no_strike(make_demo: MakeDemo, dead: str) -> None:
    demo = make_demo(trials=1)
    for _ in range(4):
        killed_as_it_claims(demo, dead)
    demo.worker(plays(steadily(1.0))).step()
    assert demo.states == ["COMPLETE"]
    assert demo.leases[0].strikes == 0


def test_a_trial_that_is_tried_again_is_not_ended_by_its_old_result(demo: Demo, dead: str) -> None:
    demo.worker(plays(ends(Outcome.FAILED, reason="Bus error"))).step()
    assert demo.states == ["FAIL"]
    demo.store.orders.reopen(demo.study.study_id, [demo.trials[0]._trial_id])
    killed_as_it_claims(demo, dead)
    demo.worker(plays(steadily(1.0))).step()
    assert demo.states == ["COMPLETE"]
