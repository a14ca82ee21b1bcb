"""What an attempt has on the disk, and when: its journal, and checkpoints that are whole, in real training."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.faults.checkpoints import Storm, before_each_write, in_child
from hpsearch.bridge.protocol import Phase, Reported
from hpsearch.checkpoints import MARKER, flaw, last_checkpoint
from hpsearch.folders import JobFolder
from hpsearch.train import reporter
from hpsearch.trial import Outcome, Record, TrialResult
from tests.integration.attempt_fixtures import Rows, assert_same_bits, begun, config_of, names, reported
from tests.integration.inside import Answering, Inside


def test_a_report_is_on_the_disk_before_the_worker_is_asked(
    text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = JobFolder(tmp_path / "attempt-1")
    on_disk: list[bytes] = [b"not begun"]
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == folder.journal:
            on_disk.append(folder.journal.read_bytes())

    def answer(event: Reported) -> bool:
        assert on_disk[-1] == folder.journal.read_bytes()
        assert folder.read_journal()[-1] == event.report
        return True

    monkeypatch.setattr(os, "fsync", synced)
    worker = Answering(answer)
    result = inside.run_for(worker, folder.path, config_of(text_rows))
    assert folder.read_journal() == result.reports
    assert (begun(worker), reported(worker)) == ([], [1, 2, 3])


def test_a_loss_that_is_no_number_is_in_the_journal_once(text_rows: Rows, inside: Inside, tmp_path: Path) -> None:
    config = config_of(text_rows, training__learning_rate=1e30, training__optimizer="sgd", training__warmup_ratio=0)
    result = inside.run(tmp_path / "attempt-1", config)
    assert result.outcome is Outcome.DIVERGED
    assert repr(JobFolder(tmp_path / "attempt-1").read_journal()) == repr(result.reports)
    assert [report.step for report in result.reports] == [1]


def test_a_full_disk_fails_the_trial_and_keeps_its_reports(
    text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = JobFolder(tmp_path / "attempt-1")
    folder.prepare(config_of(text_rows))
    fsync, is_full = os.fsync, False

    def synced(descriptor: int) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    def answer(_: Reported) -> bool:
        nonlocal is_full
        is_full = True
        return True

    monkeypatch.setattr(os, "fsync", synced)
    result = inside.attempt(Answering(answer), folder, config_of(text_rows))
    assert result.outcome is Outcome.FAILED
    assert result.reason == "OSError: [Errno 28] No space left on device"
    assert [report.step for report in result.reports] == [1]


def limit_files(num_bytes: int) -> None:
    """Libraries report this error of the kernel as they report a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt"])
def test_a_checkpoint_that_cannot_be_written_fails_with_the_disks_own_words(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder, file: str
) -> None:
    size = (whole.checkpoints / "checkpoint-6" / file).stat().st_size
    folder = JobFolder(tmp_path / "attempt-1")
    folder.prepare(config_of(text_rows))

    def limited() -> None:
        limit_files(size - 100)
        folder.write_result(inside.attempt(Answering(), folder, config_of(text_rows)))

    assert in_child(limited, folder.log) == 0
    result = folder.read(TrialResult)
    assert result.reason == "OSError: [Errno 27] File too large"
    assert list(folder.checkpoints.iterdir()) == [], "half a checkpoint takes space that others need"


def test_torch_still_tells_of_a_full_disk_in_words_of_its_own(tmp_path: Path) -> None:
    """Else `disk_errors` can go."""

    def limited() -> None:
        limit_files(10_000)
        with pytest.raises(RuntimeError, match="unexpected pos"):
            torch.save(torch.zeros(10_000), tmp_path / "optimizer.pt")

    assert in_child(limited, tmp_path / "log.txt") == 0


def test_a_checkpoint_is_saved_before_each_validation_and_two_are_kept(
    text_rows: Rows, inside: Inside, tmp_path: Path
) -> None:
    folder, seen = JobFolder(tmp_path / "attempt-1"), []

    def look(event: Record) -> bool:
        if isinstance(event, Phase) and event.name == "validating" and event.done == 0:
            seen.append(names(folder))
            assert all(flaw(folder.checkpoints / name) is None for name in names(folder))
        return False

    inside.run_for(Answering(stops_at=look), folder.path, config_of(text_rows))
    assert seen == [["checkpoint-2"], ["checkpoint-2", "checkpoint-4"], ["checkpoint-4", "checkpoint-6"]]


def test_a_checkpoint_is_saved_by_time_too(
    text_rows: Rows, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: JobFolder
) -> None:
    monkeypatch.setattr(reporter, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    folder = JobFolder(tmp_path / "attempt-1")
    inside.run(folder.path, config_of(text_rows))
    assert names(folder) == ["checkpoint-5", "checkpoint-6"]
    assert_same_bits(folder, whole)


def test_at_each_write_of_a_checkpoint_there_is_one_that_is_whole(
    text_rows: Rows, inside: Inside, tmp_path: Path, whole: JobFolder
) -> None:
    """What a kill at that moment would leave, as the page cache has it."""
    folder = JobFolder(tmp_path / "attempt-1")
    there: list[str | None] = []

    def look(_: int) -> None:
        checkpoint = last_checkpoint(folder)
        there.append(checkpoint and checkpoint.name)

    with before_each_write(look):
        inside.run(folder.path, config_of(text_rows))
    assert list(dict.fromkeys(there)) == [None, "checkpoint-2", "checkpoint-4", "checkpoint-6"], "it goes back"
    assert len(there) > 100
    assert_same_bits(folder, whole)


@pytest.mark.storm
def test_killed_at_its_writes_a_trial_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m bench.faults.checkpoints`, briefly: real processes and SIGKILL."""
    monkeypatch.setattr(reporter, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    storm = Storm(tmp_path, seed=1)
    while storm.counts.kills < 5:
        storm.trial()
    counts = storm.counts
    assert (counts.not_whole, counts.not_bitwise, counts.touched) == (0, 0, 0)
    assert counts.repeated_steps <= 1


def drop_marker(checkpoint: Path) -> None:
    (checkpoint / MARKER).unlink()


def cut(checkpoint: Path) -> None:
    os.truncate(checkpoint / "optimizer.pt", 100)


def flip(checkpoint: Path) -> None:
    file = checkpoint / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 16
    file.write_bytes(content)


TEARS = {
    drop_marker: "whole.json is missing",
    cut: "optimizer.pt has 100 bytes",
    flip: "safetensors does not have the checksum",
}


@pytest.mark.parametrize(("tear", "is_own"), [(drop_marker, True), (cut, True), (flip, True), (flip, False)])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    text_rows: Rows,
    inside: Inside,
    tmp_path: Path,
    stopped: JobFolder,
    whole: JobFolder,
    capsys: pytest.CaptureFixture[str],
    tear: Callable[[Path], None],
    is_own: bool,
) -> None:
    tear(stopped.checkpoints / "checkpoint-4")
    folder, earlier = (stopped, []) if is_own else (JobFolder(tmp_path / "attempt-2"), [stopped.path])
    worker = Answering()
    capsys.readouterr()
    inside.run_for(worker, folder.path, config_of(text_rows, *earlier))
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{stopped.checkpoints}/checkpoint-4 is not used: ") for line in said)
    assert any(TEARS[tear] in line for line in said)
    assert f"training continues from step 2, saved in {stopped.path}" in said
    assert (begun(worker), reported(worker)) == ([], [1, 2, 3])
    assert names(folder) == ["checkpoint-4", "checkpoint-6"]
    assert_same_bits(folder, whole)
