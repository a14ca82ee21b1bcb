"""How long a study will take: the sum of its measured parts, in words, and the question before a long search."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bench.faults.scripted import ScriptedTrainer, ending
from hpsearch.bridge.protocol import Began, Done, Event, Prune, Reported
from hpsearch.folders import JobFolder
from hpsearch.jobs import InspectionConfig
from hpsearch.search.usage import seconds_for
from hpsearch.spec.curriculum import CurriculumSpec, StageSpec
from hpsearch.study.estimate import Estimate, estimate
from hpsearch.study.measure import Measurement, NotMeasured, file_s_own_trial, find_measurement, measure
from hpsearch.study.open import prepare_new
from hpsearch.study.prepare import PreparedStudy
from hpsearch.trial import GIB, MIB, Fit, MemoryLedger, MemorySnapshot, Outcome, Pace
from hpsearch.watch import estimate as words
from hpsearch.watch.console import open_console, print_table
from hpsearch.watch.estimate import estimate_line, estimate_table
from tests.unit.opening_fixtures import Desk, inspecting
from tests.unit.view_fixtures import seen
from tests.unit.worker_fixtures import Play, plays

MEASURED = Measurement(
    device="the CPU",
    what="",
    took_s=3.0,
    num_steps=2,
    start_s=100.0,
    fit_s=10.0,
    batch_size=16,
    step_s=2.0,
    step_fixed_s=2.0,
    new_row_s=0.5,
    save_s=1.0,
    validation_row_s=0.25,
    rest_s=3.0,
    tokens_per_row=7.0,
    memory_bytes=2 * GIB,
    checkpoint_bytes=MIB,
    trial_bytes=0,
    image_bytes=0,
)
NOTHING = MemorySnapshot(
    host_rss_bytes=0,
    device_allocated_bytes=0,
    live_tensors=0,
    threads=1,
    file_descriptors=1,
    base_fingerprint="",
)
LEDGER = MemoryLedger(
    before=NOTHING, after=NOTHING, peak_host_bytes=GIB, peak_device_bytes=0, not_given_back=[], peak_allocated_bytes=0
)


def prepared(desk: Desk, *overrides: str) -> PreparedStudy:
    return prepare_new(desk.file(*overrides), desk.storage, plays(inspecting()), desk.tell)


def estimated(desk: Desk, *overrides: str, devices: int = 1, **measured: Any) -> Estimate:
    file = desk.file(*overrides)
    return estimate(file.spec, prepared(desk, *overrides), MEASURED.model_copy(update=measured), devices)


def test_a_search_is_the_sum_of_its_measured_parts(desk: Desk) -> None:
    """20 rows: 16 to train, 2 to validate. lora.target_modules is searched: each trial may have to find its fit."""
    found = estimated(desk, "training.batch_size=8", "budget.epochs=1.5", "budget.reports=2", "final.epochs=4")
    trial_s = 3 * 2.0 + 2 * (1.0 + 2 * 0.25) + 3.0
    assert (found.trial.steps, found.trial.rows, found.trial.tokens) == (3, 24, 24 * 7)
    assert found.trial.seconds == pytest.approx(trial_s)
    assert found.search_s == pytest.approx(100 + 10 + 18 * 0.5 + 4 * (trial_s + 10))
    assert (found.final.steps, found.final.rows) == (8, 64)
    assert found.final.seconds == pytest.approx(110 + 8 * 2.0 + 4 * (1.0 + 2 * 0.25) + 3.0)
    assert found.matters == ["lora.target_modules"]


def test_trials_are_shared_out_among_devices_in_rounds(desk: Desk) -> None:
    one, three = estimated(desk), estimated(desk, devices=3)
    assert three.search_s - 119 == pytest.approx((one.search_s - 119) / 2)
    assert [seconds_for(trials, 10.0, 3) for trials in (0, 1, 3, 4)] == [0, 10, 10, 20]


def test_a_paged_optimizer_takes_a_trainer_for_each_trial(desk: Desk) -> None:
    assert estimated(desk, "training.optimizer=paged_adamw_8bit").search_s - estimated(desk).search_s == 300
    assert estimated(desk, "search.trials_per_process=2").search_s - estimated(desk).search_s == 100


@pytest.mark.parametrize(
    ("budget", "fixed_s", "longest_s"),
    [
        ("budget.max_steps=10", 0.0, 10 * 2.0 * 2),  # of 8 rows
        ("budget.epochs=10", 2.0, 10 * 8 * 2.0),  # of 2 rows
        ("budget.epochs=10", 1.0, 10 * 8 * 1.5),
        ("budget.epochs=10", 0.0, 10 * 4 * 2.0),
    ],
)
def test_a_search_of_batch_sizes_takes_as_long_as_the_slowest(
    desk: Desk, budget: str, fixed_s: float, longest_s: float
) -> None:
    """A step of 4 rows takes 2 s, of which some do not grow with its rows."""
    given = ("training.batch_size=4", budget, "budget.reports=1", "search.trials=1")
    space = "search.space={training.batch_size: [2, 4, 8]}"
    trial = estimated(desk, *given, batch_size=4, step_fixed_s=fixed_s).trial
    assert trial.seconds == trial.steps * 2.0 + 1.5 + 3.0
    searched = estimated(desk, *given, space, batch_size=4, step_fixed_s=fixed_s)
    assert searched.search_s == pytest.approx(100 + 10 + 9 + longest_s + 4.5 + 10)


def test_the_stages_of_a_curriculum_have_steps_of_their_own(desk: Desk) -> None:
    study = prepared(desk)
    rows = [replace(row, stage="hard" if i % 4 else "easy") for i, row in enumerate(study.splits["train"])]
    stages = [StageSpec(name="easy", epochs=3), StageSpec(name="hard")]
    spec = desk.file("training.batch_size=8").spec.model_copy(update={"curriculum": CurriculumSpec(stages=stages)})
    split = {**study.splits, "train": rows}
    found = estimate(spec, replace(study, splits=split), MEASURED, 1)  # type: ignore[arg-type]
    assert (found.trial.steps, found.trial.rows) == (3 * 1 + 2, 3 * 4 + 12)


def text_of(shown: Any) -> str:
    console = open_console(file=io.StringIO(), width=120)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_what_is_bounded_and_by_what_it_was_measured(desk: Desk) -> None:
    file, found = desk.file(), estimated(desk)
    said = text_of(estimate_table(file.spec, found, desk.folder))
    assert "up to about 3 min 05 s" in said
    assert "optimizer steps (batch size 16)" in said
    assert "2.0 GiB of memory a trial, 5.0 MiB of disk" in said
    assert "measured in 3 s on the CPU: 2 steps with the file's own values" in said
    assert "the last two times include 1 min 50 s to start the trainer and load the base" in said
    assert "pruning makes it shorter" in said
    assert "careful" not in said
    assert "pruner" not in text_of(estimate_table(desk.file("search.pruner=none").spec, found, desk.folder))
    assert "4 trials up to about 3 min 05 s" in estimate_line(found)
    assert ", both with loading; 2.0 GiB" in estimate_line(found)
    assert ", 1 trial up to about " in estimate_line(replace(found, trials=1))


def test_a_narrow_terminal_tears_no_time_and_a_pipe_tears_nothing(desk: Desk) -> None:
    shown = estimate_table(desk.file().spec, estimated(desk), desk.folder)
    assert "up to about 3 min 05 s" in seen(shown, width=60)
    pipe = open_console(file=io.StringIO(), width=60)
    print_table(pipe, shown)
    assert "optimizer steps (batch size 16)" in pipe.file.getvalue()  # type: ignore[attr-defined]
    assert "\n\n" not in pipe.file.getvalue().rstrip()  # type: ignore[attr-defined]


def test_too_little_disk_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(desk.folder)._replace(free=4 * MIB)
    monkeypatch.setattr(words.shutil, "disk_usage", lambda _: usage)
    said = " ".join(text_of(estimate_table(desk.file().spec, estimated(desk), desk.folder)).split())
    assert "4.0 MiB free, which is less than the 5.0 MiB of disk that this takes: make room" in said


def measuring(outcome: Outcome = Outcome.COMPLETE, *, pace: Pace | None = None, **result: Any) -> Play:
    """Plays the inspection and then the measured run, and answers each report."""
    inspects = inspecting()

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        if isinstance(folder.job(), InspectionConfig):
            yield from inspects(trainer, folder)
            return
        yield Began()
        for step in range(1, 5):
            yield Reported(step=step, num_reports=4, loss=1.0)
            if isinstance(trainer.told[-1], Prune):
                break
        short = Pace(
            start_s=5, base_s=[2], step_s=[9, 4, 4, 2, 2, 1.5, 2, 2, 1.5], save_s=[1], validation_s=[8, 4], whole_s=30
        )
        yield from ending(folder, outcome, pace=pace or short, ledger=LEDGER, **result)

    return play


def test_what_was_measured_is_kept_for_such_trials_on_such_a_device(desk: Desk) -> None:
    file, study = desk.file("training.batch_size=6"), prepared(desk)
    config = file_s_own_trial(file, study, desk.storage)
    start = plays(measuring())
    found = measure(config, study, desk.storage, "card", start, desk.tell, file.spec.silence)
    assert (found.start_s, found.step_s, found.new_row_s, found.save_s) == (7, 2, (4 - 2) / 6, 1)
    assert [found.seconds_of_step(rows) for rows in (0, 3, 6, 12)] == pytest.approx([1, 1.5, 2, 3])
    assert (found.validation_row_s, found.memory_bytes) == (4 / 2, GIB)
    assert list((desk.storage.path / "inspections").iterdir()) == []
    assert start.trainers[0].ended
    assert find_measurement(config, study, desk.storage, "card") == found
    assert find_measurement(config, study, desk.storage) == found
    assert find_measurement(config, study, desk.storage, "another card") is None
    longer = config.model_copy(update={"budget": config.budget.model_copy(update={"epochs": 9.0})})
    assert find_measurement(longer, study, desk.storage, "card") == found
    wider = config.model_copy(update={"lora": config.lora.model_copy(update={"r": 64})})
    assert find_measurement(wider, study, desk.storage, "card") is None


def test_a_card_s_memory_is_that_of_the_longest_rows(desk: Desk) -> None:
    """Which may not be among the rows that were trained on."""
    file, study = desk.file(), prepared(desk)
    card = LEDGER.model_copy(update={"peak_device_bytes": 5 * GIB, "peak_allocated_bytes": 4 * GIB})
    fit = Fit(device="", shape="", rows=4, gradient_checkpointing=False, predicted_bytes=7 * GIB)
    start = plays(measuring(fit=fit))
    start_on_card = plays(_with_ledger(measuring(fit=fit), card))
    config = file_s_own_trial(file, study, desk.storage)
    on_cpu = measure(config, study, desk.storage, "cpu", start, desk.tell, file.spec.silence)
    on_card = measure(config, study, desk.storage, "card", start_on_card, desk.tell, file.spec.silence)
    assert (on_cpu.memory_bytes, on_card.memory_bytes) == (GIB, 8 * GIB)


def _with_ledger(play: Play, ledger: MemoryLedger) -> Play:
    def other(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        for event in play(trainer, folder):
            if isinstance(event, Done):
                from hpsearch.trial import TrialResult

                folder.write_result(folder.read(TrialResult).model_copy(update={"ledger": ledger}))
            yield event

    return other


@pytest.mark.parametrize(
    ("outcome", "said"),
    [(Outcome.OUT_OF_MEMORY, "needs more than 20.0 GiB of memory"), (Outcome.FAILED, "failed: it broke")],
)
def test_a_run_that_can_t_be_measured_is_reported(desk: Desk, outcome: Outcome, said: str) -> None:
    file, study = desk.file(), prepared(desk)
    start = plays(measuring(outcome, bytes_needed=20 * GIB, reason="it broke"))
    config = file_s_own_trial(file, study, desk.storage)
    with pytest.raises(NotMeasured, match=said):
        measure(config, study, desk.storage, "card", start, desk.tell, file.spec.silence)
    assert find_measurement(config, study, desk.storage) is None


def test_a_full_disk_ends_no_study(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    file, study = desk.file(), prepared(desk)
    monkeypatch.setattr("hpsearch.study.measure.write_rows", full)
    config = file_s_own_trial(file, study, desk.storage)
    with pytest.raises(NotMeasured, match="no space left"):
        measure(config, study, desk.storage, "card", plays(), desk.tell, file.spec.silence)


def test_a_slow_run_is_measured_on_two_passes_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.study.measure._ENOUGH_S", -1.0)
    file, study = desk.file(), prepared(desk)
    start = plays(measuring())
    measure(file_s_own_trial(file, study, desk.storage), study, desk.storage, "", start, desk.tell, file.spec.silence)
    assert [type(command).__name__ for command in start.trainers[0].told] == ["Run", "Continue", "Prune"]  # type: ignore[attr-defined]
