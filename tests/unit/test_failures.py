"""The table of worker/failures.py, row by row: what a worker does about each way in which a trial can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.bridge.protocol import Began, Event, Progress
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome
from hpsearch.worker.endings import Step
from tests.unit.worker_fixtures import (
    HERE,
    Demo,
    MakeDemo,
    Play,
    ScriptedTrainer,
    Starter,
    ends,
    nobody,
    plays,
    steadily,
)

OTHER = "other:1:1.00"
GOOD = steadily(3.0, 2.0, 1.0)


def dies(how: str, *, at: int | None = 0, is_kill: bool = False) -> Play:
    """A trainer that dies at this step; None: before it trains."""

    def play(_trainer: ScriptedTrainer, _folder: JobFolder) -> Iterator[Event | None]:
        if at is not None:
            yield Began()
            yield Progress(step=at, num_steps=99)
        raise TrainerDied(f"the trainer process ended with {how}; it printed nothing", how, is_kill=is_kill)

    return play


def killed(at: int | None = 0) -> Play:
    return dies("signal 9", at=at, is_kill=True)


def fails(reason: str) -> Play:
    return ends(Outcome.FAILED, reason=reason, traceback="Traceback …", clean=False)


def asides(demo: Demo) -> list[str]:
    return [worker.aside for worker in demo.store.workers.of(demo.study.study_id) if worker.aside]


def strikes(demo: Demo) -> list[int]:
    return [lease.strikes for lease in demo.leases]


def present(demo: Demo, name: str = OTHER) -> None:
    """Another worker, whose device is well."""
    demo.store.workers.register(name, demo.study.study_id, "a GPU")


def paused(demo: Demo) -> str | None:
    return demo.store.studies.why_paused(demo.study.study_id)


class TestTheTrial:
    def test_an_exception_of_its_own_is_fail_once(self, demo: Demo) -> None:
        start = plays(fails("ValueError: bad luck"), GOOD)
        assert demo.run(start) is Step.FINISHED
        assert demo.states == ["FAIL", "COMPLETE", "COMPLETE"]
        assert [(lease.attempt, lease.strikes) for lease in demo.leases] == [(1, 0)] * 3
        assert [trainer.ended for trainer in start.trainers] == [True, True]


class TestKills:
    def test_a_trainer_that_gets_further_each_time_may_be_killed_without_limit(self, make_demo: MakeDemo) -> None:
        demo = make_demo(trials=1)
        assert demo.run(plays(*(killed(step) for step in range(1, 10)), GOOD)) is Step.FINISHED
        assert demo.states == ["COMPLETE"]
        assert (demo.leases[0].attempt, demo.leases[0].strikes, demo.leases[0].progress) == (10, 0, 9)

    @pytest.mark.parametrize("death", [killed(5), dies("silent for 30 minutes while training", at=5)])
    def test_three_in_a_row_without_progress_are_the_end_with_every_reason(
        self, make_demo: MakeDemo, death: Play
    ) -> None:
        """The first got further than any before; then the same trial dies alike, and the device isn't blamed."""
        demo = make_demo(trials=1)
        start = plays(death, death, death, death)
        assert demo.run(start) is Step.FINISHED
        assert demo.states == ["FAIL"]
        reason = demo.trials[0].user_attrs["reason"]
        assert reason.startswith("3 attempts in a row got no further than step 5: 1. attempt 2: the trainer process")
        assert all(f"{number}. attempt {number + 1}: " in reason for number in (1, 2, 3))
        assert asides(demo) == []

    def test_progress_forgives_the_strikes_before_it(self, make_demo: MakeDemo) -> None:
        demo = make_demo(trials=1)
        worker = demo.worker(plays(killed(5), killed(5), killed(5), killed(6), killed(6), killed(6), GOOD))
        seen = []
        for _ in range(6):
            worker.step()
            seen += strikes(demo)
        assert seen == [0, 1, 2, 0, 1, 2]
        assert worker.step() is Step.WORKED
        assert demo.states == ["COMPLETE"]

    def test_kills_of_different_trials_never_blame_the_device(self, make_demo: MakeDemo) -> None:
        demo = make_demo(trials=4)
        worker = demo.worker(plays(killed(5)))
        for _ in range(4):
            assert worker.step() is Step.WORKED
            assert demo.claim(OTHER) is not None  # so that the worker's next is another trial
        assert asides(demo) == []

    def test_a_worker_that_was_killed_before_it_made_a_folder_costs_no_strike(
        self, make_demo: MakeDemo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        demo = make_demo(trials=1)
        monkeypatch.setattr("hpsearch.store.workers.is_dead", lambda name: name.startswith("dead"))
        demo.worker(plays(killed(5))).step()  # attempt 1 had trained
        for number in range(4):  # three of them in a row
            demo.store.leases.claim(demo.study.study_id, f"dead:{number}:1.00", 60.0, [f"dead:{number - 1}:1.00"])
        assert demo.run(plays(GOOD)) is Step.FINISHED
        assert (demo.states, strikes(demo)) == (["COMPLETE"], [0])


class TestTheMachine:
    def test_five_deaths_before_training_cost_no_trial(self, demo: Demo) -> None:
        present(demo)
        start = plays(dies("exit code 1", at=None))
        assert demo.run(start) is Step.SET_ASIDE
        assert len(start.trainers) == 5
        assert demo.states == ["RUNNING"]
        assert (strikes(demo), demo.leases[0].worker_id) == ([0], None)
        (reason,) = asides(demo)
        assert reason.startswith(
            "5 times in a row the trainer died at once; the trainer process ended with exit code 1"
        )
        assert demo.run(plays(GOOD), name="next:1:1.00") is Step.FINISHED
        assert demo.states == ["COMPLETE"] * 3

    def test_a_trial_that_begins_between_deaths_forgives_them(self, make_demo: MakeDemo) -> None:
        demo = make_demo(trials=2)
        early = killed(None)
        assert demo.run(plays(*[early] * 4, GOOD, *[early] * 4, GOOD)) is Step.FINISHED
        assert demo.states == ["COMPLETE"] * 2

    def test_the_same_exit_twice_on_different_trials_is_the_device_s(self, demo: Demo) -> None:
        present(demo)
        worker = demo.worker(plays(dies("exit code 1", at=5)))
        demo.store.workers.register(HERE, demo.study.study_id, "bad GPU")
        assert worker.step() is Step.WORKED
        assert (held := demo.claim(OTHER)) is not None  # so its next is another trial
        assert worker.step() is Step.SET_ASIDE
        (reason,) = asides(demo)
        assert reason.startswith("the second trial in a row ended like this: the trainer process ended with exit code")
        assert [(lease.slot, lease.worker_id, lease.strikes) for lease in demo.leases] == [(0, OTHER, 0), (1, None, 0)]
        assert held.slot == 0
        assert paused(demo) is None

    @pytest.mark.parametrize(
        "between", [GOOD, fails("ValueError: bad luck"), dies("exit code 2", at=5)], ids=["good", "own fault", "other"]
    )
    def test_two_deaths_with_another_end_between_them_are_not_in_a_row(
        self, make_demo: MakeDemo, between: Play
    ) -> None:
        demo = make_demo(trials=4)
        worker = demo.worker(plays(dies("exit code 1", at=5), between, dies("exit code 1", at=5)))
        for _ in range(3):
            assert worker.step() is Step.WORKED
            demo.claim(OTHER)
        assert asides(demo) == []

    @pytest.mark.parametrize(
        "words",
        [
            "OSError: [Errno 28] No space left on device: 'x'",
            "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
            "RuntimeError: No CUDA GPUs are available: no CUDA-capable device is detected",
            "RuntimeError: CUDA error: uncorrectable ECC error encountered",
            "OSError: [Errno 30] Read-only file system: 'x'",
        ],
    )
    @pytest.mark.parametrize("kind", [fails, dies])
    def test_a_machine_s_own_words_spend_no_trial(self, demo: Demo, kind: type, words: str) -> None:
        present(demo)
        assert demo.run(plays(kind(words))) is Step.SET_ASIDE
        assert demo.states == ["RUNNING"]
        assert (demo.leases[0].worker_id, demo.leases[0].strikes, demo.leases[0].result) == (None, 0, None)
        assert words in asides(demo)[0]

    def test_a_cuda_error_may_be_the_trial_s_and_twice_is_the_device_s(self, demo: Demo) -> None:
        present(demo)
        error = "RuntimeError: CUDA error: an illegal memory access was encountered at 0x7f{}"
        start = plays(fails(error.format("aa")), fails(error.format("bb")))
        assert demo.run(start) is Step.SET_ASIDE
        assert demo.states == ["FAIL", "RUNNING"]
        assert asides(demo)[0].startswith("the second trial in a row ended with RuntimeError: CUDA error")

    def test_two_cuda_errors_with_another_failure_between_them_are_the_trials(self, demo: Demo) -> None:
        demo.run(plays(fails("CUDA error: one"), fails("ValueError: two"), fails("CUDA error: one")))
        assert demo.states == ["FAIL"] * 3
        assert asides(demo) == []

    def test_a_result_that_another_worker_left_behind_says_nothing_of_this_device(
        self, demo: Demo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its trainer had no space left; here the trial trains again."""
        present(demo)
        monkeypatch.setattr("hpsearch.store.workers.is_dead", lambda name: name == "dead:1:1.00")

        def written_and_killed(_trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
            yield Began()
            next(ends(Outcome.FAILED, reason="No space left on device")(_trainer, folder))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            demo.worker(plays(written_and_killed), name="dead:1:1.00").step()
        assert demo.run(plays(GOOD)) is Step.FINISHED
        assert (demo.states, asides(demo)) == (["COMPLETE"] * 3, [])

    def test_when_the_last_device_is_aside_the_study_pauses_and_says_why(self, demo: Demo) -> None:
        assert demo.run(plays(fails("No space left on device"))) is Step.SET_ASIDE
        assert paused(demo) == "every device is set aside, the last one because of this: No space left on device"
        assert demo.run(nobody, name="next:1:1.00") is Step.PAUSED


class TestAllAlike:
    def test_three_first_failures_alike_pause_and_resume_forgives_them(self, make_demo: MakeDemo) -> None:
        demo = make_demo(trials=8)
        bad = plays(*(fails(f"KeyError: row {number} of /data/{number}.png") for number in range(8)))
        assert demo.run(bad) is Step.PAUSED
        assert demo.states == ["FAIL"] * 3
        assert str(paused(demo)).startswith("the first 3 trials all failed, the last 3 the same way: KeyError: row 2")
        demo.store.orders.resume(demo.study.study_id, len(demo.view.failed))
        assert demo.run(bad, name="again:1:1.00") is Step.PAUSED
        assert demo.states == ["FAIL"] * 6
        demo.store.orders.resume(demo.study.study_id, len(demo.view.failed))
        assert demo.run(plays(GOOD), name="third:1:1.00") is Step.FINISHED

    @pytest.mark.parametrize(
        "plot",
        [
            [fails("KeyError: a"), fails("ValueError: b"), fails("KeyError: a")],
            [GOOD, *[fails("KeyError: a")] * 4],
            [ends(Outcome.DIVERGED, reason="nan"), *[fails("KeyError: a")] * 4],
        ],
        ids=["different", "one was good", "one diverged"],
    )
    def test_other_failures_pause_nothing(self, make_demo: MakeDemo, plot: list[Play]) -> None:
        demo = make_demo(trials=len(plot))
        assert demo.run(plays(*plot)) is Step.FINISHED
        assert paused(demo) is None


def test_no_trial_is_started_twice_at_a_time(demo: Demo, tmp_path: Path) -> None:
    """The trainer of a trial that went wrong is ended before the next one starts (`Starter` looks)."""
    del tmp_path
    start: Starter = plays(killed(5), fails("ValueError"), dies("exit code 1", at=None), GOOD)
    assert demo.run(start) is Step.FINISHED
    assert len(start.trainers) == 4
