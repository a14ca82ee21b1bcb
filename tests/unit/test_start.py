"""Where a training run continues, depending on what is in the folders of its attempts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpsearch.checkpoints import flaw, written_whole
from hpsearch.files import append_line
from hpsearch.folders import JobFolder, StageFolder
from hpsearch.train.start import Plan, Start, find_start
from hpsearch.trial import HistoryPoint, Report

ONE_STAGE = Plan([8], {1: 2, 2: 4, 3: 6, 4: 8})
THREE_STAGES = Plan([4, 2, 2], {1: 2, 2: 4, 3: 6, 4: 8})


def attempt(path: Path, plan: Plan, *checkpoints: tuple[int, int], reports: int = 0, done: int = 0) -> JobFolder:
    """With checkpoints at (stage, step in it), so many reports, and so many stages done."""
    folder = JobFolder(path)
    for stage, step in checkpoints:
        with written_whole(plan.stage(folder, stage).path / f"checkpoint-{step}") as draft:
            (draft / "weights").write_text(f"{path.name} {stage} {step}")
    for stage in range(done):
        with written_whole(plan.stage(folder, stage).adapter) as draft:
            (draft / "weights").write_text(f"{path.name} {stage}")
        plan.stage(folder, stage).finish([])
    path.mkdir(parents=True, exist_ok=True)
    for number in range(1, reports + 1):
        append_line(folder.journal, Report(step=number, loss=1 / number))
    for step in range(1, 9):
        append_line(folder.history, HistoryPoint(step=step, loss=1.0, learning_rate=0.1))
    return folder


def numbers(start: Start) -> list[int]:
    return [report.step for report in start.reports]


@pytest.fixture
def own(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "attempt-3")
    folder.path.mkdir()
    return folder


def test_without_anything_it_is_the_first_step(own: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_start(own, [], ONE_STAGE) == Start()
    assert capsys.readouterr().out == "", "that is what is expected of a first attempt"


def test_a_checkpoint_between_reports_comes_with_those_before_it(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", ONE_STAGE, (0, 4), (0, 5), reports=3)
    start = find_start(own, [first.path], ONE_STAGE)
    assert start.checkpoint == own.checkpoints / "checkpoint-5"
    assert flaw(start.checkpoint) is None
    assert (start.step, numbers(start), start.open_report) == (5, [1, 2], None)
    assert own.last_step() == 5


def test_a_report_at_the_checkpoints_very_step_is_open(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", ONE_STAGE, (0, 4), reports=2)
    start = find_start(own, [first.path], ONE_STAGE)
    assert numbers(start) == [1]
    assert start.open_report == Report(step=2, loss=0.5)


def test_of_equally_far_ones_the_own_folders_and_then_the_latest_counts(own: JobFolder, tmp_path: Path) -> None:
    first, second = (attempt(tmp_path / f"attempt-{number}", ONE_STAGE, (0, 5), reports=2) for number in (1, 2))
    start = find_start(own, [second.path, first.path], ONE_STAGE)
    assert start.checkpoint is not None
    assert (start.checkpoint / "weights").read_text() == "attempt-2 0 5"
    for folder in (first, second):
        shutil.rmtree(folder.path)
    again = find_start(own, [second.path, first.path], ONE_STAGE)
    assert (again.step, numbers(again)) == (5, [1, 2]), "the own folder is complete once the checkpoint is there"


def test_behind_a_finished_stage_its_last_report_is_answered(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", THREE_STAGES, (0, 4), reports=2, done=1)
    start = find_start(own, [first.path], THREE_STAGES)
    assert (start.stage, start.step, start.checkpoint, start.open_report) == (1, 4, None, None)
    assert numbers(start) == [1, 2]
    assert THREE_STAGES.stage(own, 0).done.exists()
    assert flaw(THREE_STAGES.stage(own, 0).adapter) is None


def test_all_stages_done_is_the_end(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", THREE_STAGES, (2, 2), reports=4, done=3)
    start = find_start(own, [first.path], THREE_STAGES)
    assert (start.stage, start.step, numbers(start)) == (3, 8, [1, 2, 3, 4])


@pytest.mark.parametrize("what", ["journal", "history"])
def test_an_earlier_folder_that_cannot_be_read_is_passed_over(
    own: JobFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    first = attempt(tmp_path / "attempt-1", ONE_STAGE, (0, 4), reports=2)
    second = attempt(tmp_path / "attempt-2", ONE_STAGE, (0, 5), reports=2)
    file: Path = getattr(second, what)
    file.unlink()
    file.mkdir()
    start = find_start(own, [second.path, first.path], ONE_STAGE)
    assert start.step == 4
    assert f"{second.checkpoints}/checkpoint-5 is not used: {file.name} can't be read" in capsys.readouterr().out


def test_an_earlier_folder_that_vanishes_is_passed_over(
    own: JobFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = attempt(tmp_path / "attempt-1", ONE_STAGE, (0, 4), reports=2)
    second = attempt(tmp_path / "attempt-2", ONE_STAGE, (0, 5), reports=2)
    listed = StageFolder.checkpoints

    def vanishes(folder: StageFolder) -> list[Path]:
        if second.path in folder.path.parents:
            raise FileNotFoundError(2, "No such file or directory", str(folder.path))
        return listed(folder)

    monkeypatch.setattr(StageFolder, "checkpoints", vanishes)
    assert find_start(own, [second.path, first.path], ONE_STAGE).step == 4
    assert f"{second.path} is not used: attempt-2 can't be read" in capsys.readouterr().out


def test_a_checkpoint_behind_the_end_is_another_runs(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", ONE_STAGE, (0, 9), reports=4)
    assert find_start(own, [first.path], ONE_STAGE) == Start()


def test_nothing_is_written_to_an_earlier_folder(own: JobFolder, tmp_path: Path) -> None:
    first = attempt(tmp_path / "attempt-1", THREE_STAGES, (0, 4), (1, 1), reports=2, done=1)
    torn = first.stage(1, 3).path / "checkpoint-2"
    torn.mkdir()
    before = {path: path.stat().st_mtime_ns for path in (first.path, *first.path.rglob("*"))}
    assert find_start(own, [first.path], THREE_STAGES).step == 5
    assert {path: path.stat().st_mtime_ns for path in (first.path, *first.path.rglob("*"))} == before
