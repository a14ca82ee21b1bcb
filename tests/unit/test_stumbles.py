"""What no trainer is to blame for: a worker's own mistakes, and trials that somebody ended from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.bridge.protocol import Began, Event, Progress
from hpsearch.errors import LeaseLost
from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import (
    HERE,
    Demo,
    MakeDemo,
    ScriptedTrainer,
    ending,
    ends,
    nobody,
    plays,
    report,
    steadily,
)

NEXT = "next:1:1.00"
GOOD = steadily(3.0, 2.0, 1.0)


def paused(demo: Demo) -> str | None:
    return demo.store.studies.why_paused(demo.study.study_id)


def stumbling_at(monkeypatch: pytest.MonkeyPatch, *numbers: int, mistake: str = "KeyError: {}") -> None:
    """Making the folder of these trials' attempts fails, for every worker."""
    begin = TrialFolder.begin

    def broken(folder: TrialFolder, attempt: int) -> JobFolder:
        number = int(folder.path.name)
        if number in numbers:
            raise RuntimeError(mistake.format(number))
        return begin(folder, attempt)

    monkeypatch.setattr(TrialFolder, "begin", broken)


class TestStumbles:
    def test_a_slot_is_put_aside_after_two_and_the_worker_goes_on(
        self, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stumbling_at(monkeypatch, 0)
        assert demo.run(plays(GOOD)) is Step.FINISHED
        assert demo.states == ["FAIL", "COMPLETE", "COMPLETE"]
        attributes = demo.trials[0].user_attrs
        assert attributes["reason"] == "given up: 2 workers failed at it, the last with RuntimeError: KeyError: 0"
        assert attributes["traceback"].startswith("Traceback (most recent call last):")
        assert "raise RuntimeError(mistake.format(number))" in attributes["traceback"]
        assert (demo.leases[0].attempt, demo.leases[0].finished) == (2, True)
        assert [trial.number for trial in demo.view.failed] == [0], "hpsearch retry can give it back"

    def test_the_next_worker_may_have_better_luck(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as broken:
            stumbling_at(broken, 0)
            assert demo.worker(plays(GOOD)).step() is Step.WORKED
        assert demo.states == ["RUNNING"]
        assert (demo.leases[0].worker_id, demo.leases[0].stumbles) == (None, 1)
        assert demo.run(plays(GOOD), name=NEXT) is Step.FINISHED
        assert demo.states == ["COMPLETE"] * 3

    def test_a_worker_that_stumbles_alike_at_different_slots_is_set_aside(
        self, make_demo: MakeDemo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder that it may not write to would be every trial's end."""
        demo = make_demo(trials=30)
        demo.store.workers.register(NEXT, demo.study.study_id, "a GPU")
        stumbling_at(monkeypatch, *range(30), mistake="[Errno 13] Permission denied: '/storage/{}'")
        assert demo.run(plays(GOOD)) is Step.SET_ASIDE
        assert demo.states == ["FAIL", "RUNNING"], "it costs one trial, not thirty"
        assert (demo.leases[1].worker_id, demo.leases[1].stumbles) == (None, 0)
        assert paused(demo) is None

    def test_a_full_disk_sets_the_device_aside_at_once(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        stumbling_at(monkeypatch, 0, 1, 2, mistake="[Errno 28] No space left on device")
        assert demo.run(plays(GOOD)) is Step.SET_ASIDE
        assert demo.states == ["RUNNING"]
        assert (demo.leases[0].worker_id, demo.leases[0].stumbles) == (None, 0)
        assert str(paused(demo)).endswith("RuntimeError: [Errno 28] No space left on device")

    def test_trials_put_aside_pause_a_study_as_failures_do(
        self, make_demo: MakeDemo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        demo = make_demo(trials=9)
        stumbling_at(monkeypatch, *range(9))
        steps = [demo.worker(plays(GOOD), name=f"host:{number}:1.00").step() for number in range(20)]
        assert Step.PAUSED in steps
        assert demo.states.count("FAIL") == 3

    def test_a_slot_that_is_lost_while_the_worker_stumbles_is_left_alone(
        self, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lost(*_: Any) -> None:
            demo.expire()
            assert demo.claim(NEXT) is not None
            raise RuntimeError("a mistake")

        monkeypatch.setattr(TrialFolder, "begin", lost)
        assert demo.worker(plays(GOOD)).step() is Step.WORKED
        assert (demo.leases[0].worker_id, demo.leases[0].stumbles) == (NEXT, 0)

    def test_a_lease_that_is_lost_while_asking_ends_no_worker(
        self, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = demo.worker(plays(GOOD))
        start = worker._search.start

        def overtaken(lease: Any) -> Any:
            monkeypatch.undo()
            demo.expire()
            assert demo.claim(NEXT) is not None
            return start(lease)

        monkeypatch.setattr(worker._search, "start", overtaken)
        assert [worker.step(), worker.step()] == [Step.WORKED, Step.WORKED]
        assert [lease.worker_id for lease in demo.leases] == [NEXT, HERE]


def end(demo: Demo, number: int = 0, state: TrialState = TrialState.COMPLETE) -> None:
    """Somebody ends the trial: in the dashboard, or with Optuna."""
    study = optuna.load_study(study_name="demo", storage=demo.store.optuna)
    study.tell(number, 0.5 if state is TrialState.COMPLETE else None, state=state)


class TestEndedFromOutside:
    @pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED], ids=lambda s: s.name)
    @pytest.mark.parametrize("moment", ["between two reports", "before the result", "before it is claimed again"])
    def test_its_slot_is_closed_and_the_worker_goes_on(self, demo: Demo, moment: str, state: TrialState) -> None:
        def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            yield Began()
            yield report(1, 9.0)
            if moment == "between two reports":
                end(demo, state=state)
                yield report(2, 8.0)
                pytest.fail("it goes on as if nothing had happened")
            if moment == "before the result":
                end(demo, state=state)
            yield from ending(folder, Outcome.STOPPED if "claimed" in moment else Outcome.COMPLETE, 9.0)

        start = plays(play, GOOD)
        worker = demo.worker(start)
        if moment == "before it is claimed again":
            assert worker.step() is Step.STOPPED
            end(demo, state=state)
        assert worker.run() is Step.FINISHED
        assert demo.states == [state.name, "COMPLETE", "COMPLETE"]
        assert demo.trials[0].value == (
            0.5 if state is TrialState.COMPLETE else None if state is TrialState.FAIL else 9.0
        )
        assert [lease.finished for lease in demo.leases] == [True] * 3
        assert all(trainer.ended for trainer in start.trainers)
        attempts = demo.study.storage.trial(demo.study.uid, 0).before(99)
        assert [attempt.path.name for attempt in attempts] == ["attempt-1"]

    def test_between_the_last_report_and_the_tell(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        worker = demo.worker(plays(GOOD))
        tell = worker._search.tell

        def late(*arguments: Any) -> None:
            end(demo)
            monkeypatch.undo()
            tell(*arguments)

        monkeypatch.setattr(worker._search, "tell", late)
        assert worker.run() is Step.FINISHED
        assert demo.trials[0].value == 0.5
        assert demo.states == ["COMPLETE"] * 3

    def test_with_a_result_that_was_stored_and_not_told(self, demo: Demo) -> None:
        lease = demo.claim("killed:1:1.00")
        assert lease is not None
        demo.worker(nobody)._search.start(lease)
        end(demo)
        demo.store.leases.store_result(lease, TrialResult(outcome=Outcome.FAILED, reason="x").model_dump_json())
        demo.expire()
        assert demo.worker(plays(GOOD)).step() is Step.WORKED
        assert (demo.states, demo.leases[0].finished) == (["COMPLETE"], True)

    def test_a_slot_that_is_lost_meanwhile_ends_no_worker(self, demo: Demo) -> None:
        def play(_: ScriptedTrainer, _folder: JobFolder) -> Iterator[Event | None]:
            yield Progress(step=1, num_steps=9)
            end(demo)
            close = demo.store.leases.close

            def lost(lease: Any) -> None:
                demo.store.leases.close = close  # type: ignore[method-assign]
                raise LeaseLost(f"slot {lease.slot}: another worker has taken over")

            demo.store.leases.close = lost  # type: ignore[method-assign]
            yield report(1, 9.0)

        worker = demo.worker(plays(play, GOOD))
        assert [worker.step(), worker.step()] == [Step.WORKED, Step.WORKED]
        assert demo.states == ["COMPLETE", "COMPLETE"]


def test_a_trial_that_ended_well_leaves_no_checkpoints(demo: Demo) -> None:
    """A failed trial keeps them: `hpsearch retry` continues from there."""

    def saving(outcome: Outcome) -> Any:
        def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            (folder.checkpoints / "checkpoint-1").mkdir(parents=True)
            yield from ends(outcome, 1.0, reason="why")(trainer, folder)

        return play

    demo.run(plays(saving(Outcome.COMPLETE), saving(Outcome.FAILED), saving(Outcome.PRUNED)))
    folders = [demo.study.storage.trial(demo.study.uid, number).attempt(1) for number in range(3)]
    assert [folder.checkpoints.exists() for folder in folders] == [False, True, False]
