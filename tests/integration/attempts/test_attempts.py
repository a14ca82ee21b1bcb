"""Attempts of one trial: however one ends, the next continues where it was saved, and ends with the same bits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.faults.checkpoints import tree_of
from hpsearch.bridge.protocol import Began, Phase, Progress, Reported
from hpsearch.folders import JobFolder
from hpsearch.train.tasks.generation import Generation
from hpsearch.train.tasks.task import RowLoss
from hpsearch.trial import Outcome
from tests.integration.attempt_fixtures import (
    Killed,
    Rows,
    assert_same_bits,
    at_validation,
    begun,
    config_of,
    kill,
    reported,
    steps,
)
from tests.integration.inside import Answering, Inside


@pytest.mark.parametrize(("number", "is_killed"), [(1, False), (2, False), (3, False), (3, True)])
def test_out_of_a_validation_the_next_attempt_validates_first(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder, number: int, is_killed: bool
) -> None:
    """The third is the final one: no step is trained again behind it."""
    folder = JobFolder(tmp_path / "attempt-1")
    if is_killed:
        with pytest.raises(Killed):
            inside.run_for(Answering(stops_at=kill(at_validation(number))), folder.path, config_of(text_rows))
    else:
        worker = Answering(stops_at=at_validation(number))
        stopped = inside.run_for(worker, folder.path, config_of(text_rows))
        assert (stopped.outcome, stopped.num_steps) == (Outcome.STOPPED, 2 * number)
        assert [report.step for report in stopped.reports] == reported(worker) == list(range(1, number))
    worker = Answering()
    inside.run_for(worker, folder.path, config_of(text_rows))
    assert (begun(worker), reported(worker)) == (list(range(1, number)), list(range(number, 4)))
    told = [type(event) for event in worker.sent if isinstance(event, Progress | Reported)]
    assert told[0] is Reported
    assert len(folder.history.read_text().splitlines()) == 6, "a step was trained twice, or left out"
    assert_same_bits(folder, whole)


def test_a_base_that_draws_random_numbers_in_validation_changes_nothing(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a base with code of its own may: one attempt validates with them and another without."""
    losses = Generation.losses

    def drawing(*arguments: Any) -> list[RowLoss]:
        torch.rand(3)
        return losses(*arguments)

    monkeypatch.setattr(Generation, "losses", drawing)
    inside.run(tmp_path / "attempt-1", config_of(text_rows))
    assert_same_bits(JobFolder(tmp_path / "attempt-1"), whole)


def test_a_report_whose_answer_was_not_heard_is_asked_again_and_not_made_again(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder
) -> None:
    def dies(event: Reported) -> bool:
        if event.step == 2:
            raise Killed
        return True

    first, second = JobFolder(tmp_path / "attempt-1"), JobFolder(tmp_path / "attempt-2")
    with pytest.raises(Killed):
        inside.run_for(Answering(dies), first.path, config_of(text_rows))
    worker = Answering()
    inside.run_for(worker, second.path, config_of(text_rows, first.path))
    assert (begun(worker), reported(worker)) == ([1], [2, 3])
    validated = [event for event in worker.sent if isinstance(event, Phase) and event.name == "validating"]
    assert len([event for event in validated if event.done == 0]) == 1
    assert_same_bits(second, whole)


def test_it_can_be_pruned_at_the_report_that_is_asked_again(
    text_rows: Rows, inside: Inside, tmp_path: Path, stopped: JobFolder
) -> None:
    worker = Answering(lambda _: False)
    result = inside.run_for(worker, tmp_path / "attempt-2", config_of(text_rows, stopped.path))
    assert (result.outcome, result.num_steps) == (Outcome.PRUNED, 4)
    assert reported(worker) == [2]
    assert steps(worker) == []


@pytest.mark.parametrize("phase", ["preparing tiny:qwen2", "attaching the adapter", "looking for a checkpoint"])
def test_a_stop_before_the_first_step_leaves_at_once(
    text_rows: Rows, inside: Inside, tmp_path: Path, phase: str
) -> None:
    folder = JobFolder(tmp_path / "attempt-1")
    worker = Answering(stops_at=lambda event: isinstance(event, Phase) and event.name == phase)
    result = inside.run_for(worker, folder.path, config_of(text_rows))
    assert (result.outcome, result.num_steps, result.reports) == (Outcome.STOPPED, 0, [])
    assert not [event for event in worker.sent if isinstance(event, Began | Progress)]
    assert not folder.checkpoints.exists()


def test_the_next_attempt_goes_on_and_leaves_the_one_before_as_it_is(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder
) -> None:
    first, second, third = (JobFolder(tmp_path / f"attempt-{number}") for number in (1, 2, 3))
    inside.run(first.path, config_of(text_rows), stops_after=1)
    before = tree_of(first.path)
    worker = Answering(stops_at=at_validation(1))
    stopped = inside.run_for(worker, second.path, config_of(text_rows, first.path))
    assert (begun(worker), reported(worker), stopped.num_steps) == ([], [1], 4)
    assert tree_of(first.path) == before
    shutil.rmtree(first.path)  # what was continued from it was copied
    worker = Answering()
    inside.run_for(worker, third.path, config_of(text_rows, second.path, first.path))
    assert (begun(worker), reported(worker)) == ([1], [2, 3])
    assert_same_bits(third, whole)


def test_the_furthest_checkpoint_is_continued_from_any_attempt(
    text_rows: Rows, inside: Inside, tmp_path: Path, stopped: JobFolder, whole: JobFolder
) -> None:
    """A paused trainer was taken over, and went further before its end than the attempt after it."""
    second, third = (JobFolder(tmp_path / f"attempt-{number}") for number in (2, 3))
    inside.run(second.path, config_of(text_rows), stops_after=1)
    worker = Answering()
    inside.run_for(worker, third.path, config_of(text_rows, second.path, stopped.path))
    assert (begun(worker), reported(worker)) == ([1], [2, 3])
    assert_same_bits(third, whole)


@pytest.mark.parametrize("has_checkpoint", [False, True], ids=["nothing in it", "no journal"])
def test_where_nothing_can_be_used_it_starts_over_and_says_so(
    text_rows: Rows,
    inside: Inside,
    tmp_path: Path,
    stopped: JobFolder,
    whole: JobFolder,
    capsys: pytest.CaptureFixture[str],
    has_checkpoint: bool,
) -> None:
    """Without its journal a checkpoint can't say what was reported before it."""
    shutil.rmtree(stopped.checkpoints / "checkpoint-2" if has_checkpoint else stopped.path)
    stopped.journal.unlink(missing_ok=True)
    second, worker = JobFolder(tmp_path / "attempt-2"), Answering()
    capsys.readouterr()
    inside.run_for(worker, second.path, config_of(text_rows, stopped.path, tmp_path / "attempt-0"))
    said = capsys.readouterr().out
    assert "no checkpoint can be used: training begins at the first step" in said
    assert ("checkpoint-4 is not used: the journal lacks report 1" in said) == has_checkpoint
    assert (begun(worker), reported(worker)) == ([], [1, 2, 3])
    assert_same_bits(second, whole)


def test_what_a_kill_tore_at_the_end_of_journal_and_history_does_no_harm(
    text_rows: Rows, inside: Inside, stopped: JobFolder, whole: JobFolder
) -> None:
    for file in (stopped.journal, stopped.history):
        os.truncate(file, file.stat().st_size - 7)
    worker = Answering()
    inside.run_for(worker, stopped.path, config_of(text_rows))
    assert (begun(worker), reported(worker)) == ([1], [2, 3])
    assert stopped.journal.read_bytes() == whole.journal.read_bytes()
    assert [point.step for point in stopped.read_history()] == [1, 2, 3, 5, 6], "of step 4 its line alone is lost"
