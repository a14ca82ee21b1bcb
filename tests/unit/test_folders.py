"""A trial's folder and its attempts: journal and history after a kill, and writing that survives a power cut."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from hpsearch.files import append_line, write_text
from hpsearch.folders import JobFolder, StorageFolder, TrialFolder
from hpsearch.trial import HistoryPoint, Outcome, Report, TrialResult

REPORTS = [Report(step=1, loss=0.7), Report(step=2, loss=0.5, metrics={"exact_match": 0.25})]


def journal_of(folder: JobFolder, reports: list[Report]) -> None:
    for report in reports:
        append_line(folder.journal, report)


def test_a_storage_folder_in_which_no_file_can_be_made_is_said(tmp_path: Path) -> None:
    assert StorageFolder(tmp_path / "new").why_unwritable() is None
    why = StorageFolder(Path("/proc")).why_unwritable()  # nobody makes a file there, and root makes folders elsewhere
    assert (why or "").startswith("the storage folder /proc can't be written: ")


def test_a_journal_gives_its_reports_back(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.read_journal() == []
    journal_of(folder, [*REPORTS, Report(step=3, loss=math.nan)])
    assert folder.read_journal()[:2] == REPORTS
    assert math.isnan(folder.read_journal()[2].loss)


def test_half_a_line_at_the_end_of_a_journal_is_left_out(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    journal_of(folder, REPORTS)
    whole = folder.journal.read_bytes()
    after_first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        folder.journal.write_bytes(whole[:length])
        num_whole = (length >= after_first - 1) + (length >= len(whole) - 1)
        assert folder.read_journal() == REPORTS[:num_whole]


def test_a_line_is_on_the_disk_when_it_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = JobFolder(tmp_path), []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(folder.read_journal()))
    append_line(folder.journal, REPORTS[0])
    assert seen == [REPORTS[:1]]


def points(num_steps: int) -> list[HistoryPoint]:
    return [HistoryPoint(step=step, loss=1 / step, learning_rate=1e-5 / 3) for step in range(1, num_steps + 1)]


def test_the_last_step_is_read_from_the_end_of_a_long_history(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.last_step() == 0
    lines = [point.model_dump_json() + "\n" for point in points(1000)]
    folder.history.write_text("".join(lines))
    assert folder.last_step() == 1000
    folder.history.write_text("".join(lines)[:-3])
    assert folder.last_step() == 999
    assert folder.read_history() == points(999)
    folder.history.write_text(lines[0][:9])
    assert folder.last_step() == 0


def test_a_step_that_was_done_again_is_the_last_one(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.history.write_text("".join(point.model_dump_json() + "\n" for point in [*points(9), *points(4)[2:]]))
    assert folder.last_step() == 4
    assert [point.step for point in folder.read_history()] == list(range(1, 10))


def test_a_trials_checkpoints_go_and_the_rest_of_its_attempts_stays(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path)
    for number in (1, 2, 10):
        folder = trial.attempt(number)
        (folder.checkpoints / "checkpoint-1").mkdir(parents=True)
        journal_of(folder, REPORTS)
    trial.drop_checkpoints()
    trial.drop_checkpoints()
    assert [folder.path.name for folder in trial.before(11)] == ["attempt-10", "attempt-2", "attempt-1"]
    assert all(list(folder.path.iterdir()) == [folder.journal] for folder in trial.before(11))


def test_a_text_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = os.replace

    def replaced(source: Path, target: Path) -> None:
        done.append("replaced")
        replace(source, target)

    monkeypatch.setattr(
        os, "fsync", lambda descriptor: done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    monkeypatch.setattr(os, "replace", replaced)
    write_text(tmp_path / "result.json", "{}")
    assert done[0].startswith(str(tmp_path / ".result.json."))
    assert done[1:] == ["replaced", str(tmp_path)]


def test_a_full_disk_leaves_the_old_result_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobFolder(tmp_path)
    folder.write_result(TrialResult(outcome=Outcome.STOPPED))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_result(TrialResult(outcome=Outcome.COMPLETE))
    assert folder.read(TrialResult).outcome is Outcome.STOPPED
    assert list(tmp_path.iterdir()) == [folder.result]


def test_workers_of_two_runs_have_logs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine, and on two that share the folder and where both processes have the number 1, as in containers."""
    storage = StorageFolder(tmp_path)
    found = [storage.worker_log("demo", 0), storage.worker_log("demo", 1)]
    monkeypatch.setattr("os.getpid", lambda: 1)
    found.append(storage.worker_log("demo", 0))
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    found.append(storage.worker_log("demo", 0))
    assert len(set(found)) == 4
    assert found[-1] == storage.logs("demo") / "worker-0-of-elsewhere-1.txt"
