"""The reporter by itself: a loss that is no number ends a run, whatever the search aims at."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hpsearch.bridge.protocol import Reported
from hpsearch.train.reporter import Reporter
from hpsearch.trial import Outcome
from tests.integration.inside import Answering


def nobody(_: Reported) -> bool:
    raise AssertionError("a diverged run asks nobody")


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_no_metrics_are_missed_where_the_loss_is_no_number(tmp_path: Path, objective: str, loss: float) -> None:
    """They are not computed then."""
    best: list[int] = []
    channel = Answering(nobody, None)
    reporter = Reporter(channel, objective, 2, 8, lambda: None, lambda: best.append(1), tmp_path / "history.jsonl")
    control = TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    reporter.on_evaluate(arguments, TrainerState(global_step=4, max_steps=8), control, {"eval_loss": loss})
    assert reporter.outcome is Outcome.DIVERGED
    assert control.should_training_stop
    assert [report.step for report in reporter.reports] == [1]
    assert best == []
