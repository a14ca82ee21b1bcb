"""Curricula in real training: what each stage sees, where it starts, how it ends, and how it continues after a kill."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch.bridge.protocol import Began, Event, Reported
from hpsearch.checkpoints import last_checkpoint
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder, StageFolder
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.trainer import ReportingTrainer
from hpsearch.trial import Outcome, TrialConfig, TrialResult
from tests.integration.conftest import Driver
from tests.integration.inside import Answering, Inside
from tests.integration.stage_fixtures import Rows, config_of, counted, curriculum, levels


@pytest.fixture(scope="module")
def whole(rows: Rows, inside: Inside, tmp_path_factory: pytest.TempPathFactory) -> TrialResult:
    """An uninterrupted run of twelve steps, six easy, four medium and two hard, with a report at each."""
    return inside.run(tmp_path_factory.mktemp("whole"), twelve_steps(rows))


def twelve_steps(rows: Rows) -> TrialConfig:
    return config_of(rows, training__batch_size=2, budget=BudgetSpec(reports=12))


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]


def test_each_stage_sees_its_own_rows_shuffled_and_in_the_stages_order(
    rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]]
) -> None:
    result = inside.run(tmp_path / "trial", config_of(rows))
    assert result.outcome is Outcome.COMPLETE
    assert result.num_steps == 6
    assert levels(met) == ["easy"] * 12 + ["medium"] * 8 + ["hard"] * 4
    assert set(counted(met).values()) == {1}
    easy = [int(row_id) for batch in met[:3] for row_id in batch]
    assert easy != sorted(easy)
    assert [report.step for report in result.reports] == [1, 2, 3, 4, 5, 6]
    assert result.ledger is not None
    assert result.ledger.closes, result.ledger.not_given_back


def test_a_stage_starts_where_the_one_before_ended(
    rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start, at_end = [], []
    train = ReportingTrainer.train

    def spy(trainer: ReportingTrainer, *arguments: Any, **more: Any) -> Any:
        at_start.append(trained_weights(trainer.model))
        ended = train(trainer, *arguments, **more)
        at_end.append(trained_weights(trainer.model))
        return ended

    monkeypatch.setattr(ReportingTrainer, "train", spy)
    inside.run(tmp_path / "trial", config_of(rows))
    assert len(at_start) == 3
    for before, after in zip(at_end, at_start[1:], strict=False):
        assert equal(before, after)
    for start, end in zip(at_start, at_end, strict=True):
        assert not equal(start, end), "a stage that learns nothing"


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_each_stage_is_slower_than_the_one_before_by_the_decay(rows: Rows, inside: Inside, tmp_path: Path) -> None:
    config = config_of(rows, curriculum=curriculum(learning_rate_decay=0.5), training__warmup_ratio=0.0)
    inside.run(tmp_path / "trial", config)
    history = JobFolder(tmp_path / "trial").read_history()
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
    rates = [point.learning_rate for point in history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])


def test_reports_are_spread_over_the_whole_run(rows: Rows, inside: Inside, tmp_path: Path) -> None:
    folder, reported_at = JobFolder(tmp_path / "trial"), {}

    def note(report: Reported) -> bool:
        reported_at[report.step] = len(folder.read_history())
        return True

    result = inside.run(folder.path, config_of(rows, budget=BudgetSpec(reports=4)), goes_on=note)
    assert reported_at == {1: 2, 2: 3, 3: 5, 4: 6}
    assert [report.step for report in result.reports] == [1, 2, 3, 4]


@pytest.mark.parametrize("last", [1, 3, 4], ids=["within the first", "between two", "within the second"])
def test_it_is_pruned_within_and_between_stages(
    rows: Rows, inside: Inside, tmp_path: Path, met: list[list[str]], last: int
) -> None:
    result = inside.run(tmp_path / "trial", config_of(rows), goes_on=lambda report: report.step < last)
    assert result.outcome is Outcome.PRUNED
    assert (result.num_steps, len(result.reports)) == (last, last)
    assert len(met) <= last + 1, "the next batch may be prepared already, no more"


@pytest.mark.parametrize("after", [3, 5, 6, 9, 10])
def test_a_checkpoint_on_request_continues_in_its_stage_as_if_nothing_had_happened(
    rows: Rows, inside: Inside, tmp_path: Path, whole: TrialResult, after: int
) -> None:
    """6 and 10 are the ends of stages. The worker's answer to go on was lost in the kill: it is asked again."""
    folder = JobFolder(tmp_path / "trial")
    stopped = inside.run(folder.path, twelve_steps(rows), stops_after=after)
    assert (stopped.outcome, stopped.num_steps) == (Outcome.STOPPED, after)
    asked: list[int] = []

    def note(report: Reported) -> bool:
        asked.append(report.step)
        return True

    continued = inside.run(folder.path, twelve_steps(rows), goes_on=note)
    assert asked == list(range(after, 13))
    assert continued.outcome is Outcome.COMPLETE
    assert losses(continued) == losses(whole), "not bit for bit the same"
    assert len(folder.history.read_text().splitlines()) == 12, "a step was trained twice, or left out"


def test_killed_as_a_stage_ends_it_trains_no_step_too_many(
    rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an epoch each: after a checkpoint of the last step, transformers continues if the epoch isn't over."""
    config = twelve_steps(rows).model_copy(update={"budget": BudgetSpec(epochs=0.5, reports=3)})
    whole = inside.run(tmp_path / "whole", config)
    assert whole.num_steps == 6

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StageFolder, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            inside.run(tmp_path / "trial", config)
    continued = inside.run(tmp_path / "trial", config)
    assert continued.num_steps == 6
    assert losses(continued) == losses(whole)


@pytest.mark.parametrize("after", [6, 8])
def test_the_next_attempt_continues_in_its_stage_without_the_folder_of_the_one_before(
    rows: Rows, inside: Inside, tmp_path: Path, whole: TrialResult, after: int
) -> None:
    """6 is the end of the first stage: the report that nobody answered is made, and the stage isn't finished."""
    first, second, third = (JobFolder(tmp_path / f"attempt-{number}") for number in (1, 2, 3))
    inside.run(first.path, twelve_steps(rows), stops_after=after)
    worker = Answering(stops_at=lambda event: isinstance(event, Reported) and event.step == 9)
    inside.run_for(worker, second.path, twelve_steps(rows).model_copy(update={"earlier": [first.path]}))
    shutil.rmtree(first.path)
    inside.run(third.path, twelve_steps(rows).model_copy(update={"earlier": [second.path, first.path]}))
    (began,) = (event for event in worker.sent if isinstance(event, Began))
    assert [report.step for report in began.reports] == list(range(1, after))
    assert [event.step for event in worker.sent if isinstance(event, Reported)] == list(range(after, 10))
    assert [report.loss for report in third.read_journal()] == losses(whole), "not bit for bit the same"
    assert len(third.history.read_text().splitlines()) == 12
    assert third.stage(0, 3).done.exists()


def test_a_torn_adapter_of_a_stage_is_passed_over_for_the_stages_last_checkpoint(
    rows: Rows, inside: Inside, tmp_path: Path, whole: TrialResult, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = JobFolder(tmp_path / "attempt-1")
    inside.run(folder.path, twelve_steps(rows), stops_after=8)
    (folder.stage(0, 3).adapter / "adapter_model.safetensors").unlink()
    capsys.readouterr()
    continued = inside.run(folder.path, twelve_steps(rows))
    said = capsys.readouterr().out
    assert "the adapter of the stage before: adapter_model.safetensors is missing" in said
    assert "training continues from step 6" in said
    assert losses(continued) == losses(whole)


@pytest.mark.storm
def test_killed_in_its_second_stage_it_continues_there(
    rows: Rows, inside: Inside, start_driver: Callable[[], Driver], tmp_path: Path, whole: TrialResult
) -> None:
    driver, folder = start_driver(), JobFolder(tmp_path / "trial")

    def kill(event: Event) -> None:
        if isinstance(event, Reported) and event.step == 8:
            driver.process._process.send_signal(signal.SIGKILL)

    with pytest.raises(TrainerDied, match="signal 9"):
        driver.run(folder.path, twelve_steps(rows), each=kill)
    assert folder.stage(0, 3).done.exists()
    assert last_checkpoint(folder) == folder.checkpoints / "stage-2" / "checkpoint-2"
    seen: list[int] = []

    def note(report: Reported) -> bool:
        seen.append(report.step)
        return True

    continued = inside.run(folder.path, twelve_steps(rows), goes_on=note)
    assert seen == [8, 9, 10, 11, 12]
    assert losses(continued) == losses(whole), "not bit for bit the same"
    assert continued.num_steps == 12
