"""How long a study will take: the sum of its measured parts, in words, and the question before what is long."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from hpsearch.bridge.fake import ScriptedTrainer, ending
from hpsearch.bridge.protocol import Began, Done, Event, Prune, Reported
from hpsearch.bridge.stopping import StopFlag
from hpsearch.cli import estimating
from hpsearch.cli import run as run_verb
from hpsearch.errors import Interrupted
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
from hpsearch.watch.console import open_console
from hpsearch.watch.estimate import estimate_line, estimate_table
from tests.unit.opening_fixtures import Desk, inspecting
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
    assert "at most 3 min 05 s" in said
    assert "2.0 GiB of memory a trial, 5.0 MiB of disk" in said
    assert "measured in 3 s on the CPU: 2 steps with the file's own values" in said
    assert "what the pruner stops makes it less" in said
    assert "careful" not in said
    assert "pruner" not in text_of(estimate_table(desk.file("search.pruner=none").spec, found, desk.folder))
    assert "4 trials at most 3 min 05 s" in estimate_line(found)


def test_too_little_disk_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(desk.folder)._replace(free=4 * MIB)
    monkeypatch.setattr(words.shutil, "disk_usage", lambda _: usage)
    said = " ".join(text_of(estimate_table(desk.file().spec, estimated(desk), desk.folder)).split())
    assert "4.0 MiB free, which is less than the 5.0 MiB of disk that this takes: make room" in said


def measuring(outcome: Outcome = Outcome.COMPLETE, *, pace: Pace | None = None, **result: Any) -> Play:
    """Plays the inspection, and after it the measured run, in which each report is answered."""
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
def test_a_run_that_can_t_be_measured_is_told(desk: Desk, outcome: Outcome, said: str) -> None:
    file, study = desk.file(), prepared(desk)
    start = plays(measuring(outcome, bytes_needed=20 * GIB, reason="it broke"))
    config = file_s_own_trial(file, study, desk.storage)
    with pytest.raises(NotMeasured, match=said):
        measure(config, study, desk.storage, "card", start, desk.tell, file.spec.silence)
    assert find_measurement(config, study, desk.storage) is None


def test_a_slow_run_is_measured_on_two_passes_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.study.measure._ENOUGH_S", -1.0)
    file, study = desk.file(), prepared(desk)
    start = plays(measuring())
    measure(file_s_own_trial(file, study, desk.storage), study, desk.storage, "", start, desk.tell, file.spec.silence)
    assert [type(command).__name__ for command in start.trainers[0].told] == ["Run", "Continue", "Prune"]  # type: ignore[attr-defined]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Asks, with that answer typed; None: nobody types."""
    monkeypatch.setattr(estimating, "_is_foreground", lambda _: True)
    reading, writing = os.pipe()

    def answers(typed: str | None, stop: StopFlag | None = None, *, is_terminal: bool = True) -> tuple[bool, str]:
        console = open_console(file=io.StringIO(), force_terminal=is_terminal)
        if typed is not None:
            os.write(writing, typed.encode())
        agreed = estimating.agrees(console, stop or StopFlag(), reading)
        assert isinstance(console.file, io.StringIO)
        return agreed, console.file.getvalue()

    yield answers
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(("typed", "begins"), [("\n", True), ("Y\n", True), ("n\n", False), ("what?\n", False)])
def test_a_person_is_asked_whether_a_long_search_begins(answering: Any, typed: str, *, begins: bool) -> None:
    agreed, said = answering(typed)
    assert agreed is begins
    assert "Start? [Y/n]" in said


def test_nobody_is_waited_for_who_is_not_there(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering(None, is_terminal=False) == (True, "")
    monkeypatch.setattr(estimating, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(estimating, "_PATIENCE_S", 0.02)
    agreed, said = answering(None)
    assert agreed
    assert "nobody answers: it starts" in said
    monkeypatch.setattr(estimating, "_is_foreground", lambda _: False)
    assert answering(None) == (True, "")


def test_ctrl_c_at_the_question_is_a_no(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_LOOK_EVERY_S", 0.01)
    stop = StopFlag()
    stop.ask()
    with pytest.raises(Interrupted, match="before anything was trained"):
        answering(None, stop)


def test_a_real_terminal_is_asked_and_heard() -> None:
    ours, theirs = pty.openpty()
    asks = (
        "import sys; from hpsearch.bridge.stopping import StopFlag; from hpsearch.cli.estimating import agrees; "
        "from hpsearch.watch.console import open_console; sys.exit(30 + agrees(open_console(), StopFlag()))"
    )

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", asks],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    said = b""
    while b"in a minute)" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"n\n")
    assert process.wait(timeout=60) == 30
    os.close(ours)


@pytest.fixture
def runs(desk: Desk, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The part of `hpsearch run` before a new study is in a store; gives what was prepared, what was said, and how
    often a person was asked."""
    assert workplace == desk.folder
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(play: Play, *overrides: str, agrees: bool = True, asks: bool = True) -> tuple[PreparedStudy, str, int]:
        asked: list[bool] = []
        monkeypatch.setattr(run_verb, "inspector", lambda: plays(play))
        monkeypatch.setattr(estimating, "agrees", lambda *_: bool(asked.append(agrees)) or agrees)
        console = open_console(file=io.StringIO(), width=150)
        study = run_verb._prepare(console, desk.file(*overrides), StopFlag(), None, 1, asks=asks)
        assert isinstance(console.file, io.StringIO)
        return study, console.file.getvalue(), len(asked)

    return run


LONG = "search.trials=3000"


def test_a_new_study_s_estimate_is_shown_and_a_long_one_is_asked_about(runs: Any, desk: Desk) -> None:
    study, said, asked = runs(measuring())
    assert "demo: what it will take" in said
    assert asked == 0
    assert runs(measuring(), LONG)[2] == 1
    assert runs(measuring(), LONG, asks=False)[2] == 0
    with pytest.raises(typer.Exit) as ended:
        runs(measuring(), LONG, agrees=False)
    assert ended.value.exit_code == 130
    assert desk.store.studies.all() == []
    assert desk.open(start=plays(inspecting())).manifest == study.manifest


def test_a_study_that_can_t_be_measured_begins_all_the_same(runs: Any) -> None:
    study, said, asked = runs(measuring(Outcome.OUT_OF_MEMORY, bytes_needed=20 * GIB))
    assert "needs more than 20.0 GiB of memory; it begins all the same" in said
    assert (len(study.splits["train"]), asked) == (16, 0)


def test_a_prepared_study_is_created_as_it_is(desk: Desk) -> None:
    """Without a second look: there is no trainer to give one."""
    from hpsearch.study.open import open_study
    from tests.unit.worker_fixtures import nobody

    study = prepared(desk)
    opened = open_study(desk.file(), desk.store, desk.storage, nobody, desk.tell, joins=False, prepared=study)
    assert opened.manifest == study.manifest
