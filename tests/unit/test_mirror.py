"""Storage that is mirrored: in which order files go to the bucket and come from it, and what faults on the way do.

The bucket is a folder behind a file:// URL; `tests/clusters` has a real one.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsearch.checkpoints import MARKER, flaw, last_checkpoint
from hpsearch.cli import app as app_module
from hpsearch.errors import InputError
from hpsearch.folders import JobFolder, StorageFolder, TrialFolder
from hpsearch.mirror import mirror as mirror_module
from hpsearch.mirror.address import checked, is_url
from hpsearch.mirror.copies import Copy
from hpsearch.mirror.mirror import Mirror, waited
from hpsearch.mirror.remote import Remote, RemoteUnreachable
from hpsearch.train.start import find_start
from tests.unit.test_start import ONE_STAGE, THREE_STAGES, attempt

NAME = "trials/demo-1/0000"


class Cut(Exception):
    """The line is cut."""


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(f"file://{tmp_path}/bucket/prefix")


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "prefix"


@pytest.fixture
def here(tmp_path: Path) -> TrialFolder:
    return StorageFolder(tmp_path / "here").trial("demo-1", 0)


@pytest.fixture
def there(tmp_path: Path) -> TrialFolder:
    return StorageFolder(tmp_path / "there").trial("demo-1", 0)


@pytest.fixture
def open_mirror(tmp_path: Path) -> Iterator[Callable[[str], Mirror]]:
    """Of a machine's storage folder; all are closed at the end."""
    opened: list[Mirror] = []

    def open_it(machine: str) -> Mirror:
        opened.append(Mirror(StorageFolder(tmp_path / machine), f"file://{tmp_path}/bucket/prefix"))
        return opened[-1]

    yield open_it
    for mirror in opened:
        mirror.close(5.0)


def kept(remote: Remote, folder: JobFolder) -> None:
    Copy(remote, folder, f"{NAME}/{folder.path.name}").keep_up()


def fetched(remote: Remote, trial: TrialFolder, before: int) -> None:
    mirror_module.fetch_attempts(remote, trial, NAME, before)


def cut_after(monkeypatch: pytest.MonkeyPatch, remote: Remote, name: str, number: int) -> list[str]:
    """The bucket does so many things of this kind and then no more; what it did."""
    done: list[str] = []
    real = getattr(remote._fs, name)

    def counted(*arguments: Any) -> Any:
        if len(done) == number:
            raise Cut
        done.append(str(arguments[-1] if name == "put_file" else arguments[0]).partition(f"{NAME}/")[2])
        return real(*arguments)

    monkeypatch.setattr(remote._fs, name, counted)
    return done


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
        copy = Copy(remote, first, f"{NAME}/attempt-1")  # of a worker that was started anew
        done = cut_after(monkeypatch, remote, "rm_file", 9)
        copy.keep_up()
        assert done == [f"attempt-1/checkpoints/checkpoint-2/{name}" for name in (MARKER, "weights")]
        assert [seal.parent.name for seal in bucket.rglob(MARKER)] == ["checkpoint-4"]

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
        assert "checkpoint-4 is passed over: weights has 4 bytes, not 13" in caplog.text

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

    def test_the_furthest_checkpoint_comes_whoever_saved_it(
        self, remote: Remote, here: TrialFolder, there: TrialFolder
    ) -> None:
        """Of those before this attempt; and with it what its stage stands on."""
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
        """The one who was taken over lived, and went on for a while."""
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 2), reports=1))
        fetched(remote, there, 2)
        kept(remote, attempt(here.attempt(1).path, ONE_STAGE, (0, 4), reports=1))
        fetched(remote, there, 3)
        assert there.attempt(1).journal.read_bytes() == here.attempt(1).journal.read_bytes()
        assert last_checkpoint(there.attempt(1)) == there.attempt(1).checkpoints / "checkpoint-4"


class TestMirror:
    def test_without_a_url_nothing_happens(self, here: TrialFolder, tmp_path: Path) -> None:
        mirror = Mirror(StorageFolder(tmp_path / "here"))
        mirror.check()
        mirror.follow(attempt(here.attempt(1).path, ONE_STAGE, (0, 2)))
        assert mirror.settle().done()
        assert mirror.fetch_before(here, 2).done()
        assert mirror.close()
        assert {path.name for path in tmp_path.iterdir()} == {"here"}
        assert "mirror" not in {thread.name for thread in threading.enumerate()}

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
        assert flaw(bucket / NAME / "attempt-1/checkpoints/checkpoint-2") is None

    def test_an_outage_is_told_and_survived(
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
        assert caplog.messages == [f"{mirror.url}: Connection refused; it is tried again"]

    def test_who_waits_for_a_bucket_that_is_away_waits_no_longer_than_he_likes(
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
        assert caplog.messages[-1] == f"{mirror.url} lacks what was saved last: it lies in {tmp_path / 'here'} alone"

    def test_a_result_that_is_told_takes_the_checkpoints_away_of_all_machines(
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

    def test_a_final_run_comes_from_where_it_got_further(
        self, open_mirror: Callable[[str], Mirror], tmp_path: Path
    ) -> None:
        here, there = (JobFolder(tmp_path / machine / "runs" / "demo") for machine in ("here", "there"))
        first, second = open_mirror("here"), open_mirror("there")
        first.follow(attempt(here.path, ONE_STAGE, (0, 4), reports=2))
        assert waited(first.settle(), 20)
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


SECRETS = ["s3://key:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "s3://hunter2@bucket", "s3://b/x#hunter2"]


@pytest.mark.parametrize("url", [*SECRETS, "simplecache::s3://hunter2/x"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    assert is_url(url) or url.startswith("simplecache")
    with pytest.raises(InputError, match="credentials come from the environment") as refused:
        checked(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s4://bucket/x", "nothing can be kept at s4:// URLs; known: s3, gs, file"),
        ("https://bucket/x", "nothing can be kept at https:// URLs; known: s3, gs, file"),
        ("memory://x", "nothing can be kept at memory:// URLs"),
        ("s3:/bucket/x", "expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER, found 's3:/bucket/x'"),
        ("s3://", "expected s3://BUCKET"),
        ("s3:///x", "expected s3://BUCKET"),
        ("file://x/y", "expected s3://BUCKET"),
        ("file:///", "expected s3://BUCKET"),
    ],
)
def test_what_is_no_storage_url_has_words(url: str, said: str) -> None:
    assert is_url(url)
    with pytest.raises(InputError) as refused:
        checked(url)
    assert str(refused.value).startswith("HPSEARCH_STORAGE: ")
    assert said in str(refused.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"what speaks to gs:// is not installed: pip install 'hpsearch\[gcs\]'"):
        checked("gs://bucket/x")


@pytest.mark.parametrize("folder", ["storage", "/data/storage", "C:storage", "./a:/b"])
def test_a_folder_is_no_url(folder: str) -> None:
    assert not is_url(folder)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("s4://bucket", "nothing can be kept at s4:// URLs"),
        ("file:///proc/nowhere", "HPSEARCH_STORAGE: "),
        ("file://{}/bucket", "set HPSEARCH_STORE, or --store, to a PostgreSQL or MySQL URL"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "worker"])
def test_bad_storage_is_told_before_anything_begins(
    verb: str,
    storage: str,
    said: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = workplace / "demo.yaml"
    study.write_text(
        "study: demo\ntask: text-sft\nmodel: {base: 'tiny:qwen2'}\ndata: {source: rows.jsonl}\n"
        "search: {trials: 1, space: {lora.r: [8, 16]}}\n"
    )
    (workplace / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    monkeypatch.setenv("HPSEARCH_STORAGE", storage.format(workplace))
    monkeypatch.setenv("HPSEARCH_CACHE", str(workplace / "cache"))
    monkeypatch.setattr(sys, "argv", ["hpsearch", verb, str(study)])
    monkeypatch.setattr("hpsearch.bridge.stopping.StopFlag.install", lambda *_, **__: None)
    with pytest.raises(SystemExit) as exited:
        app_module.main()
    said_so = capfd.readouterr().err
    assert exited.value.code in (1, 2)
    assert said in said_so
    assert "Traceback" not in said_so
    assert {path.name for path in workplace.rglob("*") if path.is_file()} == {"demo.yaml", "rows.jsonl"}
