"""Storage that is mirrored: in which order files go to the bucket and come from it, and what faults on the way do.

The bucket is a folder behind a file:// URL; `tests/clusters` has a real one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpsearch.checkpoints import MARKER, last_checkpoint
from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.mirror.copies import OWNER, Copy, Overtaken
from hpsearch.mirror.fetching import fetch_run
from hpsearch.mirror.remote import Remote, RemoteUnreachable
from hpsearch.train.start import find_start
from tests.unit.mirror_fixtures import NAME, cut_after, fetched, kept
from tests.unit.test_start import ONE_STAGE, THREE_STAGES, attempt


class TestCopies:
    def test_a_seal_goes_last_and_the_journal_before_it(
        self, remote: Remote, here: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = attempt(here.attempt(1).path, THREE_STAGES, (1, 1), reports=2, done=1)
        first.result.write_text("{}")
        done = cut_after(monkeypatch, remote, "put_file", 99)
        kept(remote, first)
        stage = "attempt-1/checkpoints/stage-"
        assert done == [
            "attempt-1/history.jsonl",
            "attempt-1/journal.jsonl",
            f"{stage}1/adapter/weights",
            f"{stage}1/adapter/{MARKER}",
            f"{stage}1/reports.json",
            f"{stage}2/checkpoint-1/weights",
            f"{stage}2/checkpoint-1/{MARKER}",
            "attempt-1/result.json",
        ]

    @pytest.mark.parametrize("number", range(7))
    def test_wherever_the_line_is_cut_another_machine_goes_on_from_a_whole_checkpoint(
        self, number: int, remote: Remote, here: TrialFolder, there: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1)
        kept(remote, first)
        attempt(first.path, ONE_STAGE, (0, 4), reports=2)
        shutil.rmtree(first.checkpoints / "checkpoint-2")
        with monkeypatch.context() as patch:
            for name in ("put_file", "rm_file"):
                cut_after(patch, remote, name, max(0, number if name == "put_file" else number - 4))
            if number < 6:
                with pytest.raises(RemoteUnreachable):
                    kept(remote, first)
            else:
                kept(remote, first)
        fetched(remote, there, 2)
        there.attempt(2).path.mkdir()
        start = find_start(there.attempt(2), [there.attempt(1).path], ONE_STAGE)
        assert start.step == (2 if number < 4 else 4)

    def test_what_is_dropped_here_is_dropped_there_its_seal_first(
        self, remote: Remote, bucket: Path, here: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = attempt(here.attempt(1).path, ONE_STAGE, (0, 2), (0, 4), reports=1)
        kept(remote, first)
        shutil.rmtree(first.checkpoints / "checkpoint-2")
        copy = Copy(remote, first, f"{NAME}/attempt-1")  # of a worker that was started again
        done = cut_after(monkeypatch, remote, "rm_file", 9)
        copy.keep_up()
        assert done == [f"attempt-1/checkpoints/checkpoint-2/{name}" for name in (MARKER, "weights")]
        assert [seal.parent.name for seal in bucket.rglob(MARKER)] == ["checkpoint-4"]

    def test_a_run_that_another_machine_has_begun_since_stays_as_that_one_has_it(
        self, remote: Remote, bucket: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs = {
            machine: attempt(tmp_path / machine / "runs" / "demo", ONE_STAGE, (0, step))
            for machine, step in (("here", 2), ("there", 4))
        }
        here, there = (Copy(remote, run, "runs/demo", is_shared=True) for run in runs.values())
        here.keep_up()
        here.keep_up()
        there.keep_up()
        for _ in range(2):
            with pytest.raises(Overtaken, match="which has begun this run since; what is trained here stays in"):
                here.keep_up()
        assert len(caplog.records) == 1
        there.keep_up()
        assert [seal.parent.name for seal in bucket.rglob(MARKER)] == ["checkpoint-4"]
        fetch_run(remote, JobFolder(tmp_path / "third"), "runs/demo")
        assert last_checkpoint(JobFolder(tmp_path / "third")) is not None
        assert not (tmp_path / "third" / OWNER).exists()

    def test_a_checkpoint_that_vanishes_on_its_way_gets_no_seal(
        self, remote: Remote, bucket: Path, here: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1)
        real = remote._fs.put_file

        def vanishing(file: str, name: str) -> None:
            if file.endswith("weights"):
                Path(file).unlink()
            real(file, name)

        monkeypatch.setattr(remote._fs, "put_file", vanishing)
        kept(remote, first)
        assert not list(bucket.rglob(MARKER))
        assert (bucket / NAME / "attempt-1" / "journal.jsonl").exists()

    def test_a_cache_that_is_emptied_takes_nothing_away_of_what_was_saved(
        self, remote: Remote, bucket: Path, here: TrialFolder
    ) -> None:
        first = attempt(here.attempt(1).path, ONE_STAGE, (0, 2), (0, 4), reports=2)
        copy = Copy(remote, first, f"{NAME}/attempt-1")
        copy.keep_up()
        there = sorted(bucket.rglob("*"))
        (first.checkpoints / "checkpoint-4" / "weights").unlink()  # half-way
        copy.keep_up()
        shutil.rmtree(first.path)
        copy.keep_up()
        assert sorted(bucket.rglob("*")) == there

    def test_drafts_and_exports_stay_here(self, remote: Remote, bucket: Path, tmp_path: Path) -> None:
        run = attempt(tmp_path / "here" / "runs" / "demo", ONE_STAGE, (0, 2))
        for name in (
            f".checkpoint-3.{'0' * 32}/weights",
            "exports/merged.gguf",
            "predictions/a.jsonl",
            "scores/a.json",
        ):
            (run.path / name).parent.mkdir()
            (run.path / name).touch()
        Copy(remote, run, "runs/demo").keep_up()
        found = {path.name for path in (bucket / "runs" / "demo").rglob("*") if path.is_file()}
        assert found == {"history.jsonl", "weights", MARKER, "a.json"}

    def test_a_step_alone_is_not_worth_the_way(self, remote: Remote, here: TrialFolder) -> None:
        first = attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1)
        copy = Copy(remote, first, f"{NAME}/attempt-1")
        before = copy.state()
        first.history.write_text("more")
        assert copy.state() == before
        attempt(first.path, ONE_STAGE, (0, 4))
        assert copy.state() != before


class TestFetching:
    def test_a_name_that_leads_out_of_the_folder_is_no_file_of_ours(
        self, remote: Remote, there: TrialFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """S3 takes any text for a name."""
        outside = tmp_path / "outside"
        sealed = f"attempt-1/checkpoints/checkpoint-2/{MARKER}"
        names = [
            f"attempt-1/{'../' * 9}{outside}",
            f"/{outside}",
            f"attempt-1/./{outside.name}",
            f"attempt-1/checkpoints/checkpoint-2/../../../../{outside.name}",
            "attempt-1/journal.jsonl",
            sealed,
        ]
        root = remote._at(NAME)
        monkeypatch.setattr(remote._fs, "find", lambda *_, **__: {f"{root}/{name}": {"size": 4} for name in names})
        assert remote.find(NAME).keys() == {"attempt-1/journal.jsonl", sealed}
        monkeypatch.setattr(remote._fs, "get_file", lambda _name, file: Path(file).write_text("evil"))
        fetched(remote, there, 2)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["journal.jsonl"]

    def test_of_attempts_after_ten_only_earlier_ones_are_fetched(
        self, remote: Remote, here: TrialFolder, there: TrialFolder
    ) -> None:
        for number in (1, 10, 11):
            kept(remote, attempt(here.attempt(number).path, ONE_STAGE, (0, number), reports=1))
        fetched(remote, there, 10)
        assert [folder.path.name for folder in there.attempts] == ["attempt-1"]

    def test_a_torn_upload_is_passed_over(
        self, remote: Remote, bucket: Path, here: TrialFolder, there: TrialFolder, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 2), (0, 4), reports=2))
        (bucket / NAME / "attempt-1/checkpoints/checkpoint-4/weights").write_text("half")
        fetched(remote, there, 2)
        assert [path.name for path in there.attempt(1).checkpoints.iterdir()] == ["checkpoint-2"]
        assert "checkpoint-4 is not used: weights has 4 bytes, not 13" in caplog.text

    @pytest.mark.parametrize("number", range(4))
    def test_half_a_download_is_no_checkpoint_and_is_begun_again(
        self, number: int, remote: Remote, here: TrialFolder, there: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 4), reports=2))
        with monkeypatch.context() as patch:
            cut_after(patch, remote, "get_file", number)
            with pytest.raises(RemoteUnreachable):
                fetched(remote, there, 2)
        there.attempt(2).path.mkdir(parents=True)
        assert find_start(there.attempt(2), [there.attempt(1).path], ONE_STAGE).step == 0
        assert not list(there.path.rglob(".*"))
        fetched(remote, there, 2)
        assert find_start(there.attempt(2), [there.attempt(1).path], ONE_STAGE).step == 4

    def test_the_furthest_checkpoint_is_fetched_from_any_machine(
        self, remote: Remote, here: TrialFolder, there: TrialFolder
    ) -> None:
        """Of the attempts before this one; with it comes the adapter that its stage started from."""
        kept(remote, attempt(here.attempt(1).path, THREE_STAGES, (0, 2), (1, 1), reports=3, done=1))
        kept(remote, attempt(here.attempt(2).path, THREE_STAGES, (0, 4), reports=2))
        kept(remote, attempt(here.attempt(3).path, THREE_STAGES, (2, 1), reports=4, done=2))
        fetched(remote, there, 3)
        there.attempt(3).path.mkdir(parents=True)
        earlier = [folder.path for folder in there.before(3)]
        start = find_start(there.attempt(3), earlier, THREE_STAGES)
        assert (start.stage, start.step) == (1, 5)
        assert not list(there.attempt(2).checkpoints.glob("**/checkpoint-*"))

    def test_what_is_here_and_as_far_is_not_fetched(
        self, remote: Remote, here: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 4), reports=2))
        done = cut_after(monkeypatch, remote, "get_file", 9)
        fetched(remote, here, 2)
        assert done == []

    def test_a_longer_journal_takes_the_place_of_a_shorter_one(
        self, remote: Remote, here: TrialFolder, there: TrialFolder
    ) -> None:
        """The worker whose trial was taken over was alive, and continued for a while."""
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        fetched(remote, there, 2)
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 4), reports=1))
        fetched(remote, there, 3)
        assert there.attempt(1).journal.read_bytes() == here.attempt(1).journal.read_bytes()
        assert last_checkpoint(there.attempt(1)) == there.attempt(1).checkpoints / "checkpoint-4"
