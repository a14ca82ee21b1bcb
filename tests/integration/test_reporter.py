"""The reporter by itself: a loss that is not a number ends a run, whatever the objective is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hpsearch.bridge.protocol import Phase, Progress, Reported
from hpsearch.folders import JobFolder
from hpsearch.train.reporter import Reporter
from hpsearch.trial import Outcome
from tests.integration.inside import Answering


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def nobody(_: Reported) -> bool:
    raise AssertionError("a diverged run asks nobody")


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_no_metrics_are_missed_where_the_loss_is_no_number(tmp_path: Path, objective: str, loss: float) -> None:
    """They are not computed then."""
    best: list[int] = []
    channel = Answering(nobody)
    folder = JobFolder(tmp_path)
    reporter = Reporter(channel, folder, objective, 2, 8, lambda: None, lambda: best.append(1))
    control = TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    reporter.on_evaluate(arguments, TrainerState(global_step=4, max_steps=8), control, {"eval_loss": loss})
    assert reporter.outcome is Outcome.DIVERGED
    assert control.should_training_stop
    assert [report.step for report in reporter.reports] == [1]
    assert [report.step for report in folder.read_journal()] == [1]
    assert best == []


def test_ten_minutes_after_the_last_checkpoint_there_is_another(tmp_path: Path) -> None:
    clock = Clock()
    reporter = Reporter(Answering(nobody), JobFolder(tmp_path), "loss", 1, 100, lambda: None, None, clock)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    saved_at: list[float] = []
    for step in range(1, 10):
        control = TrainerControl()
        clock.now += 250
        reporter.on_step_end(arguments, TrainerState(global_step=step, max_steps=100), control)
        if control.should_save:
            saved_at.append(clock.now)
            reporter.saving()
    assert saved_at == [750, 1500, 2250]


def test_the_loss_of_a_step_is_told_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers calls: first the end of a step, then its log."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    worker = Answering(nobody)
    reporter = Reporter(worker, JobFolder(tmp_path), "loss", 1, 3, lambda: None, None)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for step in range(1, 4):
        clock.now += 60
        state, control = TrainerState(global_step=step, max_steps=3), TrainerControl()
        reporter.on_step_end(arguments, state, control)
        reporter.on_log(arguments, state, control, {"loss": step / 10, "learning_rate": 1e-3})
    told = [(event.step, event.loss) for event in worker.sent if isinstance(event, Progress)]
    assert told == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_validating_and_long_steps_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    worker = Answering(nobody)
    reporter = Reporter(worker, JobFolder(tmp_path), "loss", 1, 100, lambda: None, None)
    for done in range(8):
        assert reporter.validating(done, 8)
        clock.now += 0.125
    assert [event.done for event in worker.sent if isinstance(event, Phase)] == [0, 3, 6]
    clock.now += 1
    reporter.alive(TrainerState(global_step=3, max_steps=100))
    assert worker.sent[-1] == Progress(step=3, num_steps=100)
