"""`Doctor` of one device: whether a trainer's death was the device's fault, and which trials are tried there last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpsearch.bridge.protocol import Began, Event, Progress
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.endings import Step
from hpsearch.worker.failures import Doctor, is_machines
from tests.unit.worker_fixtures import MakeDemo, ScriptedTrainer, plays, steadily

KILL = TrainerDied("ended with signal 9", "signal 9", is_kill=True)
EXIT = TrainerDied("ended with exit code 127", "exit code 127")
HANG = TrainerDied("hangs", "silent for 30 minutes", is_hang=True)
COMPLETE = TrialResult(outcome=Outcome.COMPLETE)


def deaths(doctor: Doctor, death: TrainerDied, *slots: int, got_further: bool = False) -> list[str]:
    found = [doctor.of_death(slot, death, began=True, got_further=got_further) for slot in slots]
    return [verdict.consequence.name for verdict in found]


def test_kills_of_trials_that_get_further_say_nothing_of_the_device() -> None:
    doctor = Doctor()
    assert deaths(doctor, KILL, *range(20), got_further=True) == ["AGAIN"] * 20
    assert doctor.suspects == set()


def test_three_trials_that_are_killed_and_get_no_further_are_the_devices_fault() -> None:
    assert deaths(Doctor(), KILL, 0, 1, 2) == ["AGAIN", "AGAIN", "SET_ASIDE"]


def test_one_trial_that_gets_no_further_is_not() -> None:
    assert deaths(Doctor(), KILL, 0, 0, 0, 1, 1) == ["AGAIN"] * 5


def test_a_trial_that_ends_in_between_speaks_for_the_device() -> None:
    doctor = Doctor()
    deaths(doctor, KILL, 0, 1)
    doctor.of_result(2, COMPLETE)
    assert doctor.suspects == set()
    assert deaths(doctor, KILL, 3, 4) == ["AGAIN", "AGAIN"]


@pytest.mark.parametrize(
    ("death", "got_further", "is_suspect"),
    [(KILL, True, False), (KILL, False, True), (EXIT, True, True), (EXIT, False, True), (HANG, True, False)],
)
def test_which_trial_is_tried_after_all_others(death: TrainerDied, got_further: bool, is_suspect: bool) -> None:
    doctor = Doctor()
    deaths(doctor, death, 7, got_further=got_further)
    assert doctor.suspects == ({7} if is_suspect else set())


def test_an_exit_code_twice_in_a_row_on_different_trials_is_the_devices_fault() -> None:
    assert deaths(Doctor(), EXIT, 0, 0, 1, got_further=True) == ["AGAIN", "AGAIN", "SET_ASIDE"]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_words_of_a_machine_are_a_failures(outcome: Outcome) -> None:
    told = TrialResult(outcome=outcome, reason="OSError: [Errno 28] No space left on device")
    assert is_machines(told) is (outcome is Outcome.FAILED)


def dies(how: TrainerDied) -> Iterator[Event | None]:
    yield Began()
    yield Progress(step=0, num_steps=9)
    raise how


@pytest.mark.parametrize(("death", "num_begun"), [(KILL, 4), (EXIT, 3)])
def test_a_device_that_goes_bad_spends_no_trial(make_demo: MakeDemo, death: TrainerDied, num_begun: int) -> None:
    """It had done one trial; then each of the next ones is tried once, and the study pauses with all of them open."""
    demo = make_demo(trials=6)

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        return steadily(1.0)(trainer, folder) if len(demo.states) == 1 else dies(death)

    assert demo.run(plays(play)) is Step.SET_ASIDE
    assert demo.states == ["COMPLETE", *["RUNNING"] * (num_begun - 1)]
    assert max(lease.strikes for lease in demo.leases) == 1
    assert demo.store.studies.why_paused(demo.study.study_id) is not None
