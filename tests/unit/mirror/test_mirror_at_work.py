"""The mirror beside a worker: its thread, its patience with a bucket that is away, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.checkpoints import flaw, last_checkpoint
from hpsearch.folders import JobFolder, StorageFolder, TrialFolder
from hpsearch.mirror import mirror as mirror_module
from hpsearch.mirror.copies import OWNER, Copy
from hpsearch.mirror.mirror import Mirror, waited
from hpsearch.mirror.remote import Remote
from hpsearch.opening.places import fetch_adapter, storage_folder
from hpsearch.spec import load_study
from tests.unit.mirror_fixtures import NAME, kept
from tests.unit.test_start import ONE_STAGE, attempt

STUDY = """\
study: demo
task: text-sft
model: {{base: "tiny:qwen2", adapter: "{adapter}"}}
data: {{source: rows.jsonl, columns: {{question: q, answer: a}}}}
"""


class TestMirror:
    def test_without_a_url_nothing_happens(self, here: TrialFolder, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        mirror = Mirror(StorageFolder(tmp_path / "here"))
        mirror.check()
        mirror.follow(attempt(here.attempt(1).path, ONE_STAGE, (0, 2)))
        assert mirror.settle().done()
        assert mirror.fetch_before(here, 2).done()
        assert mirror.close()
        assert {path.name for path in tmp_path.iterdir()} == {"here"}
        assert "mirror" not in {thread.name for thread in set(threading.enumerate()) - before}

    def test_what_comes_is_copied_as_it_comes(
        self, open_mirror: Callable[[str], Mirror], bucket: Path, here: TrialFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror_module, "_LOOK_EVERY_S", 0.01)
        copied = threading.Event()
        keep_up = Copy.keep_up

        def and_say(copy: Copy) -> None:
            keep_up(copy)
            copied.set()

        monkeypatch.setattr(Copy, "keep_up", and_say)
        open_mirror("here").follow(attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        assert copied.wait(20)
        assert list(bucket.rglob(OWNER)) == [], "an attempt is one machine's alone"
        assert flaw(bucket / NAME / "attempt-1/checkpoints/checkpoint-2") is None

    def test_an_outage_is_reported_and_survived(
        self,
        open_mirror: Callable[[str], Mirror],
        bucket: Path,
        here: TrialFolder,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        mirror = open_mirror("here")
        monkeypatch.setattr(mirror, "_pause", lambda _: None)
        assert mirror._remote is not None
        outages = iter([OSError("Connection refused")] * 3)
        put = mirror._remote._fs.put_file

        def away(*arguments: str) -> None:
            for outage in outages:
                raise outage
            put(*arguments)

        monkeypatch.setattr(mirror._remote._fs, "put_file", away)
        mirror.follow(attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        assert waited(mirror.settle(), 20)
        assert flaw(bucket / NAME / "attempt-1/checkpoints/checkpoint-2") is None
        assert caplog.messages == [f"{mirror.url}: Connection refused; trying again"]

    def test_waiting_for_an_unreachable_bucket_ends_in_time(
        self,
        open_mirror: Callable[[str], Mirror],
        here: TrialFolder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        mirror, ticks = open_mirror("here"), []

        def away(*_: str) -> None:
            raise OSError("Connection refused")

        assert mirror._remote is not None
        monkeypatch.setattr(mirror._remote._fs, "put_file", away)
        mirror.follow(attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        assert not waited(mirror.settle(), 20, lambda: ticks.append(1), lambda: len(ticks) == 2)
        assert len(ticks) == 2
        assert not mirror.close(0.1)
        assert caplog.messages[-1].endswith(f"does not have the last checkpoint: it is only in {tmp_path / 'here'}")

    def test_a_stored_result_deletes_the_checkpoints_of_all_machines(
        self, open_mirror: Callable[[str], Mirror], remote: Remote, bucket: Path, here: TrialFolder, there: TrialFolder
    ) -> None:
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        mirror, second = open_mirror("there"), attempt(there.attempt(2).path, ONE_STAGE, (0, 4), reports=2)
        mirror.follow(second)
        assert waited(mirror.settle(), 20)
        there.drop_checkpoints()
        assert waited(mirror.told(there), 20)
        assert not list(bucket.rglob("checkpoint-*/*"))
        assert len(list(bucket.rglob("journal.jsonl"))) == 2

    @pytest.mark.parametrize("called", ["{name}", "{runs}/{name}/adapter"])
    def test_a_run_that_a_study_continues_from_is_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_mirror: Callable[[str], Mirror], called: str
    ) -> None:
        """By the name in the study file, or by the place that a study in the store has for it."""
        monkeypatch.setenv("HPSEARCH_STORAGE", f"file://{tmp_path}/bucket/prefix")
        monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "there"))
        first, run = open_mirror("here"), JobFolder(tmp_path / "here" / "runs" / "before")
        run.adapter.mkdir(parents=True)
        (run.adapter / "adapter_config.json").write_text("{}")
        run.result.write_text("{}")
        first.follow(run)
        assert waited(first.settle(), 20)
        runs = storage_folder().runs
        (tmp_path / "study.yaml").write_text(STUDY.format(adapter=called.format(name="before", runs=runs)))
        fetch_adapter(load_study(tmp_path / "study.yaml"))
        assert (runs / "before" / "adapter" / "adapter_config.json").read_text() == "{}"

    def test_a_final_run_comes_from_where_it_got_further(
        self, open_mirror: Callable[[str], Mirror], bucket: Path, tmp_path: Path
    ) -> None:
        here, there = (JobFolder(tmp_path / machine / "runs" / "demo") for machine in ("here", "there"))
        first, second = open_mirror("here"), open_mirror("there")
        first.follow(attempt(here.path, ONE_STAGE, (0, 4), reports=2))
        assert waited(first.settle(), 20)
        assert list(bucket.rglob(OWNER)) == [bucket / "runs" / "demo" / OWNER]
        second.fetch_runs("another")
        assert not there.path.exists()
        second.fetch_runs("demo")
        assert last_checkpoint(there) == there.checkpoints / "checkpoint-4"
        attempt(there.path, ONE_STAGE, (0, 8))  # eight lines more in its history
        there.result.write_text('"its end"')
        second.follow(there)
        assert waited(second.settle(), 20)
        here.result.write_text('"stopped"')
        first.fetch_runs("demo")
        assert here.result.read_text() == '"its end"'
        assert last_checkpoint(here) == here.checkpoints / "checkpoint-8"
