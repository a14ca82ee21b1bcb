"""What tests of workers, views and results share: a study in a real SQLite store, and trainers that follow a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial
from sqlalchemy import Row, inspect, select, text, update

from bench.faults.scripted import Play, ScriptedTrainer, ending, training
from hpsearch.bridge.protocol import Began, Event, Reported
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import Trainer
from hpsearch.data.manifest import Manifest
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.search import Search
from hpsearch.search.view import StudyView, read_view
from hpsearch.spec import StudySpec
from hpsearch.store import Lease, Store
from hpsearch.store.engine import database_now
from hpsearch.store.tables import leases
from hpsearch.study.open import OpenStudy, num_trials
from hpsearch.trial import GIB, MIB, MemoryLedger, MemorySnapshot, Outcome, TrialConfig
from hpsearch.worker.endings import Step
from hpsearch.worker.worker import Worker

HERE = "elsewhere:1:1.00"
"""A worker on another host: nobody can tell that it is dead before its lease runs out."""
MANIFEST = Manifest(splits={"train": [("0", "a")], "validation": [("1", "b")], "test": [("2", "c")]}, left_out={})
SEARCH: dict[str, Any] = {
    "trials": 3,
    "sampler": "random",
    "pruner": "none",
    "space": {"training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "lora.r": [8, 16]},
}


def study_spec(*, spec: dict[str, Any] | None = None, **search: Any) -> StudySpec:
    """A study of three trials with three reports each; `search` and `spec` change that."""
    whole: dict[str, Any] = {
        "study": "demo",
        "task": "text-sft",
        "model": {"base": "tiny:qwen2"},
        "data": {"source": "rows.jsonl"},
        "budget": {"reports": 3},
        "search": SEARCH | search,
    }
    return StudySpec.model_validate(whole | (spec or {}))


class Clock:
    """Stands still until somebody changes `now`, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """SIGKILL, as far as a worker can know: none of its code runs after this."""


def report(step: int, loss: float) -> Reported:
    return Reported(step=step, num_reports=3, loss=loss)


def steadily(*losses: float) -> Play:
    """A training that reports these losses and ends well, whatever the worker says."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        del trainer
        yield Began()
        for step, loss in enumerate(losses, start=1):
            yield report(step, loss)
        yield from ending(folder, Outcome.COMPLETE, *losses)

    return play


class Starter:
    """Starts trainers, and keeps those that it started."""

    def __init__(self, make: Callable[[], Trainer]) -> None:
        self._make = make
        self.trainers: list[Any] = []

    def __call__(self) -> Trainer:
        assert all(trainer.ended for trainer in self.trainers), "two trainers at once share one device"
        self.trainers.append(self._make())
        return self.trainers[-1]


def ends(outcome: Outcome, *losses: float, **more: Any) -> Play:
    """A job that reports nothing and ends like this; takes what `ending` takes."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        del trainer
        return ending(folder, outcome, *losses, **more)

    return play


def ledger(peak_device_gib: float, not_given_back: list[str] | None = None) -> MemoryLedger:
    held = MemorySnapshot(
        host_rss_bytes=3 * MIB,
        device_allocated_bytes=0,
        live_tensors=3,
        threads=1,
        file_descriptors=5,
        base_fingerprint="f00",
    )
    peaks = {"peak_host_bytes": GIB, "peak_device_bytes": int(peak_device_gib * GIB)}
    return MemoryLedger(before=held, after=held, not_given_back=not_given_back or [], **peaks)


def plays(*scripts: Play) -> Starter:
    """The play of each trial in turn, whichever trainer it lands on; the last one is repeated."""
    left = list(scripts)

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        yield from (left.pop(0) if len(left) > 1 else left[0])(trainer, folder)

    return Starter(lambda: ScriptedTrainer(play))


def by(losses: Callable[[TrialConfig], list[float]]) -> Starter:
    """Trainings that report what `losses` gives for their configs."""
    return plays(training(losses))


def nobody() -> Trainer:
    raise AssertionError("no trainer is needed here")


def trial_number(config: TrialConfig) -> int:
    return int(config.name.rpartition(" ")[2])


@dataclass
class Demo:
    """A study that is open on this machine, and everything about it that a test may want to see."""

    store: Store
    study: OpenStudy
    clock: Clock = field(default_factory=Clock)

    def worker(self, start: Callable[[], Trainer], stop: StopFlag | None = None, name: str = HERE) -> Worker:
        return Worker(self.study, self.store, name, start, stop or StopFlag(), self.clock)

    def run(self, start: Callable[[], Trainer], stop: StopFlag | None = None, name: str = HERE) -> Step:
        return self.worker(start, stop, name).run()

    def kill(self, worker: Worker) -> None:
        """The worker's step runs into SIGKILL, and its lease runs out."""
        with pytest.raises(Killed):
            worker.step()
        self.expire()

    @property
    def folder(self) -> JobFolder:
        """Of the first trial's last attempt."""
        last = self.study.storage.trial(self.study.uid, 0).last
        assert last is not None
        return last

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.store.optuna.get_all_trials(self.study.study_id)

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials]

    @property
    def leases(self) -> list[Row[Any]]:
        with self.store.optuna.engine.begin() as connection:
            return list(connection.execute(select(leases).order_by(leases.c.slot)).all())

    @property
    def seconds_left(self) -> float:
        """Until the only lease runs out."""
        with self.store.optuna.engine.begin() as connection:
            expires_at = connection.scalar(select(leases.c.expires_at))
            assert expires_at is not None
            return float(expires_at) - database_now(connection)

    @property
    def view(self) -> StudyView:
        stored = self.store.studies.find("demo")
        assert stored is not None
        return read_view(self.store, stored)

    def expire(self) -> None:
        """All leases that are held run out."""
        with self.store.optuna.engine.begin() as connection:
            connection.execute(update(leases).values(expires_at=1.0))

    def claim(self, name: str) -> Lease | None:
        return self.store.leases.claim(self.study.study_id, name, 60.0)

    def enqueue(self, *trials: dict[str, Any]) -> None:
        """Says what the next trials will be; knobs that are not named are drawn."""
        study = optuna.load_study(study_name="demo", storage=self.store.optuna)
        for params in trials:
            study.enqueue_trial(params)


MakeDemo = Callable[..., Demo]


def emptied(store: Store) -> Store:
    """The store without a row of an earlier test."""
    store.optuna.remove_session()
    with store.optuna.engine.begin() as connection:
        for table in inspect(connection).get_table_names():
            if "version" not in table:
                connection.execute(text(f"DELETE FROM {table}"))
    return store


def new_demo(store: Store, folder: Path, **changes: Any) -> Demo:
    spec = study_spec(**changes)
    study_id = Search(store, spec).study_id
    assert store.studies.create(study_id, spec, num_trials(spec), MANIFEST.to_bytes(), folder)
    stored = store.studies.find(spec.study)
    assert stored is not None
    rows, storage = folder / "rows", StorageFolder(folder / "storage")
    paths = (rows / "train", rows / "validation", storage, rows)
    return Demo(store, OpenStudy(spec, study_id, stored.uid, MANIFEST, *paths))
