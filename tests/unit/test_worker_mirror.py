"""A trial that changes machines: with a bucket between them it continues, without one it says why it starts over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpsearch.bridge.protocol import Began, Event, Progress
from hpsearch.bridge.stopping import StopFlag
from hpsearch.checkpoints import written_whole
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.mirror.mirror import Mirror
from hpsearch.store import Lease
from hpsearch.trial import Outcome, TrialConfig
from hpsearch.watch.tables import study_panel
from hpsearch.worker import worker as worker_module
from hpsearch.worker.endings import Step
from hpsearch.worker.worker import Worker
from tests.unit.worker_fixtures import Demo, Killed, MakeDemo, Play, ScriptedTrainer, ending, plays, report

A, B = "a.lab:1:1.00", "b.lab:1:1.00"


@pytest.fixture
def one(make_demo: MakeDemo) -> Demo:
    """A study of one trial."""
    return make_demo(trials=1)


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def on(machine: str, demo: Demo) -> StorageFolder:
    return StorageFolder(demo.study.storage.path / machine)


def worker(demo: Demo, name: str, play: Play, url: str | None, stop: StopFlag | None = None) -> Worker:
    """On a machine of its own."""
    storage = on(name.partition(".")[0], demo)
    study = replace(demo.study, storage=storage)
    return Worker(study, demo.store, name, plays(play), stop or StopFlag(), demo.clock, mirror=Mirror(storage, url))


def saved(folder: JobFolder, step: int) -> None:
    with written_whole(folder.checkpoints / f"checkpoint-{step}") as draft:
        (draft / "weights").write_text(f"of step {step}")


def stops_at(step: int, demo: Demo, stop: StopFlag | None) -> Play:
    """A training that is stopped at this step, and saved; without a `stop`, its worker is killed there."""

    def play(_: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield Began()
        yield Progress(step=step, num_steps=9)
        yield report(1, 3.0)
        saved(folder, step)
        demo.clock.now += 60  # it reports how far it is
        yield Progress(step=step, num_steps=9)
        if stop is None:
            raise Killed
        stop.ask()
        yield from ending(folder, Outcome.STOPPED, 3.0)

    return play


class Second:
    """A training to its end, that remembers what it was given."""

    earlier: tuple[Path, ...] = ()
    found: tuple[str, ...] = ()

    def __call__(self, _: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        config = folder.job()
        assert isinstance(config, TrialConfig)
        self.earlier = tuple(config.earlier)
        self.found = tuple(path.name for each in self.earlier for path in JobFolder(each).checkpoints.iterdir())
        yield Began()
        saved(folder, 9)
        yield from ending(folder, Outcome.COMPLETE, 3.0, 2.0)


def standing(demo: Demo) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(study_panel(demo.view))
    return " ".join(captured.get().split())


def test_a_stopped_trial_is_given_back_when_the_bucket_has_its_checkpoint(
    one: Demo, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, second = StopFlag(), Second()
    give_back, there = one.store.leases.give_back, list[str]()

    def looked(lease: Lease) -> None:
        there.extend(path.parent.name for path in (tmp_path / "bucket").rglob("whole.json"))
        give_back(lease)

    monkeypatch.setattr(one.store.leases, "give_back", looked)
    assert worker(one, A, stops_at(4, one, stop), bucket, stop).run() is Step.STOPPED
    assert there == ["checkpoint-4"]
    assert worker(one, B, second, bucket).run() is Step.FINISHED
    assert second.found == ("checkpoint-4",)
    assert second.earlier[0].is_relative_to(on("b", one).path)
    assert one.states == ["COMPLETE"]
    assert "started over" not in standing(one)
    assert not list((tmp_path / "bucket").rglob("checkpoint-*/*"))


def test_a_killed_workers_trial_goes_on_elsewhere(one: Demo, bucket: str) -> None:
    first, second = worker(one, A, stops_at(4, one, None), bucket), Second()
    one.kill(first)
    first._mirror.close()  # the moment after it had copied what there was
    assert worker(one, B, second, bucket).step() is Step.WORKED
    assert second.found == ("checkpoint-4",)
    assert one.states == ["COMPLETE"]


def test_while_it_is_copied_the_worker_gives_signs_of_life(
    one: Demo, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, goes_on = StopFlag(), threading.Event()
    leaving = worker(one, A, stops_at(4, one, stop), bucket, stop)
    remote: Any = leaving._mirror._remote
    put, tick = remote.put, worker_module.Attempt.tick
    ticks = 0

    def held_up(file: Path, name: str) -> None:
        assert goes_on.wait(20), "nobody gave a sign of life meanwhile"
        put(file, name)

    def counted(attempt: Any) -> None:
        nonlocal ticks
        ticks += stop.requested
        if ticks == 4:
            goes_on.set()
        tick(attempt)

    monkeypatch.setattr(remote, "put", held_up)
    monkeypatch.setattr(worker_module.Attempt, "tick", counted)
    assert leaving.run() is Step.STOPPED
    assert list((tmp_path / "bucket").rglob("whole.json"))


def test_a_bucket_that_is_away_fails_no_trial(
    one: Demo, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "FETCH_S", 0.1)
    monkeypatch.setattr(worker_module, "PATIENCE_S", 0.1)

    def away(*_: object, **__: object) -> None:
        raise OSError("Connection refused")

    stop, second = StopFlag(), Second()
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.find", away)
    assert worker(one, A, stops_at(4, one, stop), bucket, stop).run() is Step.STOPPED
    assert "does not have the last checkpoint of trial 0" in caplog.text
    assert worker(one, B, second, bucket).run() is Step.FINISHED
    assert second.earlier == ()
    assert one.states == ["COMPLETE"]
    why = f"attempt 2 started over: the folder of attempt 1 is on a.lab, and {bucket} does not have it"
    assert f"trial 0, {why}" in standing(one)


def test_without_sharing_a_trial_starts_over_and_says_why(one: Demo) -> None:
    stop, second = StopFlag(), Second()
    worker(one, A, stops_at(4, one, stop), None, stop).run()
    assert worker(one, B, second, None).run() is Step.FINISHED
    assert second.earlier == ()
    told = "trial 0, attempt 2 started over: the folder of attempt 1 is on a.lab, and HPSEARCH_STORAGE is not shared"
    assert told in standing(one)


def test_a_trial_that_comes_back_goes_on_from_what_is_here_and_says_what_is_not(one: Demo) -> None:
    for name, step in ((A, 2), (B, 4)):
        stop = StopFlag()
        worker(one, name, stops_at(step, one, stop), None, stop).run()
    second = Second()
    assert worker(one, A, second, None).run() is Step.FINISHED
    assert second.found == ("checkpoint-2",)
    told = "attempt 3 continues from attempt-1: the folder of attempt 2 is on b.lab, and HPSEARCH_STORAGE is not shared"
    assert told in standing(one)


def test_where_the_folder_is_shared_nothing_is_said(one: Demo) -> None:
    for step in (2, 4):
        stop = StopFlag()
        worker(one, A, stops_at(step, one, stop), None, stop).run()
    assert worker(one, A, Second(), None).run() is Step.FINISHED
    assert "attempt 3" not in standing(one)
