"""A trial whose worker was killed: another one continues it, or stores the result that was left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from hpsearch.bridge.protocol import Began, Command, Continue, Event, Progress
from hpsearch.folders import JobFolder
from hpsearch.store.workers import worker_id_of
from hpsearch.trial import Outcome, Report, TrialConfig, TrialResult
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import (
    Demo,
    Killed,
    MakeDemo,
    Play,
    ScriptedTrainer,
    ending,
    nobody,
    plays,
    report,
    steadily,
)

NEXT = "next:1:1.00"


@pytest.fixture(scope="module")
def dead() -> str:
    """A worker that certainly is: its process ran on this host."""
    with subprocess.Popen(["sleep", "60"]) as process:
        worker_id = worker_id_of(process.pid)
        process.kill()
    return worker_id


def killed_after(*losses: float, outcome: Outcome | None = None) -> Play:
    """A worker that is killed after these reports, and after the result was written where there is an outcome."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield Began()
        for step, loss in enumerate(losses, start=1):
            yield Progress(step=step, num_steps=9)
            yield report(step, loss)
        if outcome is not None:
            next(ending(folder, outcome, *losses))
        raise Killed

    return play


def test_a_result_that_a_killed_worker_left_behind_is_told_without_training_again(demo: Demo, dead: str) -> None:
    demo.kill(demo.worker(plays(killed_after(3.0, 2.0, outcome=Outcome.COMPLETE)), name=dead))
    assert demo.states == ["RUNNING"]
    assert demo.worker(nobody, name=NEXT).step() is Step.WORKED
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].value == 2.0
    assert demo.trials[0].intermediate_values == {1: 3.0, 2: 2.0}
    assert (demo.leases[0].attempt, demo.leases[0].deaths, demo.leases[0].finished) == (2, 1, True)


def test_the_result_of_a_worker_that_may_live_does_not_count(demo: Demo) -> None:
    """It was paused, and its trainer may have written the result after the lease was gone."""
    demo.kill(demo.worker(plays(killed_after(3.0, 2.0, outcome=Outcome.COMPLETE))))
    demo.worker(plays(steadily(7.0)), name=NEXT).step()
    assert demo.trials[0].value == 7.0
    assert demo.trials[0].intermediate_values == {1: 7.0}


@pytest.mark.parametrize("content", ["", "{", '{"outcome": "unheard of"}', '{"outcome": "complete", "colour": 1}'])
def test_a_result_that_nobody_can_read_is_none(demo: Demo, dead: str, content: str) -> None:
    demo.kill(demo.worker(plays(killed_after(3.0, outcome=Outcome.COMPLETE)), name=dead))
    demo.folder.result.write_text(content)
    demo.worker(plays(steadily(7.0)), name=NEXT).step()
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].value == 7.0


def test_a_result_that_was_stored_but_not_told_is_told_without_its_folder(demo: Demo) -> None:
    lease = demo.claim("somebody:1:1.00")
    assert lease is not None
    demo.store.leases.store_result(lease, TrialResult(outcome=Outcome.FAILED, reason="Bus error").model_dump_json())
    demo.expire()
    assert demo.worker(nobody).step() is Step.WORKED
    assert demo.states == ["FAIL"]
    assert demo.trials[0].user_attrs["reason"] == "Bus error"


@pytest.mark.parametrize("outcome", [None, Outcome.STOPPED])
def test_a_killed_workers_trial_goes_on_in_a_folder_of_its_own(demo: Demo, outcome: Outcome | None) -> None:
    found: list[JobFolder] = []

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        found.append(folder)
        yield Began(reports=[Report(step=1, loss=3.0)])
        yield report(2, 2.0)
        yield from ending(folder, Outcome.COMPLETE, 3.0, 2.0)

    demo.kill(demo.worker(plays(killed_after(3.0, outcome=outcome))))
    first = demo.folder
    before = contents(first)
    demo.worker(plays(play), name=NEXT).step()
    assert [first.path.name, found[0].path.name] == ["attempt-1", "attempt-2"]
    config = found[0].job()
    assert isinstance(config, TrialConfig)
    assert config.earlier == [first.path]
    assert contents(first) == before
    assert demo.states == ["COMPLETE"]
    assert demo.trials[0].intermediate_values == {1: 3.0, 2: 2.0}


def contents(folder: JobFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_rerun_is_judged_by_its_own_reports(make_demo: MakeDemo) -> None:
    """The attempt before had reported more than its last checkpoint has: these steps are done again."""
    demo = make_demo(pruner={"name": "median", "startup_trials": 1, "warmup_reports": 0})
    told: list[type[Command]] = []
    history: list[dict[int, float]] = []

    def again(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield Began(reports=[Report(step=1, loss=2.5)])
        history.append(demo.trials[1].intermediate_values)
        yield report(2, 1.5)
        history.append(demo.trials[1].intermediate_values)
        told.append(type(trainer.told[-1]))
        yield from ending(folder, Outcome.COMPLETE, 2.5, 1.5)

    worker = demo.worker(plays(steadily(3.0, 2.0, 1.0), killed_after(2.5, 1.9, 99.0)))
    worker.step()
    demo.kill(worker)
    demo.worker(plays(again), name=NEXT).step()
    assert history == [{1: 2.5}, {1: 2.5, 2: 1.5}]
    assert told == [Continue]
    assert demo.trials[1].intermediate_values == {1: 2.5, 2: 1.5}


def test_two_studies_of_one_name_share_no_folder(make_demo: MakeDemo) -> None:
    first = make_demo()
    optuna.delete_study(study_name="demo", storage=first.store.optuna)
    second = make_demo()
    assert first.study.storage.path == second.study.storage.path
    assert first.study.storage.trial(first.study.uid, 0).path != second.study.storage.trial(second.study.uid, 0).path


def test_a_folder_of_another_stores_attempt_is_left_alone(demo: Demo) -> None:
    """Where a store was copied, the copy's attempts have the same names."""
    other = demo.study.storage.trial(demo.study.uid, 0).attempt(1)
    other.path.mkdir(parents=True)
    (other.path / "theirs").touch()
    demo.worker(plays(steadily(2.0))).step()
    assert demo.trials[0].value == 2.0
    assert not (demo.folder.path / "theirs").exists()
    assert len(list(other.path.parent.rglob("theirs"))) == 1


def test_a_trial_that_gets_no_further_is_given_up_with_all_its_reasons(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=2)
    killing = plays(killed_after(3.0))
    for number in range(4):  # the first got as far as nobody before
        demo.kill(demo.worker(killing, name=f"victim-{number}:1:1.00"))
        killing.trainers[-1].end()
    assert demo.states == ["RUNNING"]
    assert demo.worker(nobody, name=NEXT).step() is Step.WORKED
    assert demo.states == ["FAIL"]
    silent = "the last holder was silent for too long, and may live"
    assert demo.trials[0].user_attrs["reason"] == (
        f"3 attempts in a row got no further than step 1: 1. attempt 2: {silent}; 2. attempt 3: {silent}; "
        f"3. attempt 4: {silent}"
    )
    assert demo.trials[0].intermediate_values == {1: 3.0}
    assert demo.run(plays(steadily(1.0)), name="last:1:1.00") is Step.FINISHED
    assert demo.states == ["FAIL", "COMPLETE"]


def test_a_trial_that_gets_further_is_never_given_up(make_demo: MakeDemo) -> None:
    demo = make_demo(trials=1)

    def further(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        number = int(folder.path.name.rpartition("-")[2])
        yield Began()
        for step in range(number + 1):
            yield Progress(step=step, num_steps=99)
        raise Killed

    for number in range(7):
        demo.kill(demo.worker(plays(further), name=f"victim-{number}:1:1.00"))
    assert demo.run(plays(steadily(1.0)), name=NEXT) is Step.FINISHED
    assert demo.states == ["COMPLETE"]
    assert (demo.leases[0].attempt, demo.leases[0].deaths, demo.leases[0].progress) == (8, 7, 7)
