"""A scene: one study in a store, worked on by a team of real processes, and what must be true of it in the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from bench.faults import standin, worker
from bench.faults.tally import Tally
from hpsearch.data.manifest import Manifest
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.search import Search
from hpsearch.spec import StudySpec
from hpsearch.store import Store
from hpsearch.store.engine import parse_url
from hpsearch.store.tables import leases
from hpsearch.study.open import OpenStudy

RATE = "training.learning_rate"
STUCK_S = 180.0
"""Nothing of a storm takes so long: what does hangs."""
_processes = multiprocessing.get_context("forkserver")  # each is new, but the libraries are imported once
_processes.set_forkserver_preload(["psycopg", "optuna.storages._rdb.models", "hpsearch.search", "bench.faults.worker"])


class Stuck(Exception):
    """It did not happen in time."""


def comes(condition: Callable[[], object], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def until(condition: Callable[[], object], limit_s: float = STUCK_S, what: str = "it never came to that") -> None:
    if not comes(condition, limit_s):
        raise Stuck(what)


@dataclass(eq=False)
class Member:
    """A worker's process and its log."""

    process: BaseProcess
    log: Path
    is_killed: bool = False

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.exitcode is None

    def trainers(self) -> list[int]:
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        self.is_killed = True
        self.signal(signal.SIGKILL)


class Scene:
    """Use through `scene`. `environment` goes to every worker."""

    def __init__(self, url: str, folder: Path, num_trials: int, environment: dict[str, str], **spec: Any) -> None:
        self.url = url
        self.folder = folder
        folder.mkdir(parents=True)
        self.diary = folder / "diary.txt"
        self.diary.touch()
        self.storage = StorageFolder(folder / "storage")
        self.environment = environment
        self.store = Store(parse_url(url, from_argv=False))
        self.study = self._created(num_trials, spec)
        self._look = Store(self.store.url, only_to_read=True)  # waits for no lock of SQLite's
        self.members: list[Member] = []
        self.everyone: list[Member] = []

    def _created(self, num_trials: int, spec: dict[str, Any]) -> OpenStudy:
        name = f"storm-{self.folder.name}"
        whole = {
            "study": name,
            "task": "text-sft",
            "model": {"base": "tiny:qwen2"},
            "data": {"source": "rows.jsonl"},
            "budget": {"max_steps": 24, "reports": 4},
            "search": {
                "trials": num_trials,
                "sampler": "random",
                "pruner": "none",
                "space": {RATE: {"low": 1e-5, "high": 1e-3, "log": True}},
            },
        }
        made = StudySpec.model_validate(whole | spec)
        manifest = Manifest(
            splits={"train": [("0", "a")], "validation": [("1", "b")], "test": [("2", "c")]}, left_out={}
        )
        study_id = Search(self.store, made).study_id
        assert self.store.studies.create(study_id, made, num_trials, manifest.to_bytes(), self.folder)
        return worker.open_stored(self.store, name, self.storage)

    # The team

    def start(self, **environment: str) -> Member:
        """One more worker."""
        log = self.folder / f"worker-{len(self.everyone)}.txt"
        log.touch()
        told = {
            "HPSEARCH_STORE": self.url,
            "HPSEARCH_STORAGE": str(self.storage.path),
            standin.DIARY: str(self.diary),
            **self.environment,
            **environment,
        }
        process = _processes.Process(target=worker.begin, args=(self.study.spec.study, log, told))
        process.start()
        member = Member(process, log)
        self.members.append(member)
        self.everyone.append(member)
        return member

    def replace_the_killed(self) -> None:
        """At once, in their places."""
        for member in [each for each in self.members if each.is_killed and not each.is_alive]:
            self.members.remove(member)
            self.start()

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.is_alive]

    def wait_for_all(self) -> None:
        until(lambda: not self.alive, what="workers never end")

    # What the store says

    @property
    def trials(self) -> list[FrozenTrial]:
        self._look.optuna._finished.clear()  # it remembers those that ended, and nobody may have changed one since
        return self._look.optuna.get_all_trials(self.study.study_id)

    @property
    def slots(self) -> list[Any]:
        chosen = select(leases).where(leases.c.study_id == self.study.study_id).order_by(leases.c.slot)
        with self._look.optuna.engine.begin() as connection:
            return list(connection.execute(chosen).all())

    @property
    def is_finished(self) -> bool:
        return self.slots_finished >= self.study.spec.searched.trials

    @property
    def slots_finished(self) -> int:
        return self._look.leases.slots(self.study.study_id).finished

    # What the folders say

    def attempts_begun(self) -> list[tuple[int, Path]]:
        """(pid, folder) of every attempt that a stand-in began."""
        return [(pid, folder) for pid, _, folder in self.diary_lines()]

    def diary_lines(self) -> list[tuple[int, int, Path]]:
        """(pid, pid of its worker, folder) of each."""
        lines = [line.split(" ", 2) for line in self.diary.read_text().splitlines()]
        return [(int(pid), int(worker_pid), Path(folder)) for pid, worker_pid, folder in lines]

    def last_steps(self, pids: list[int]) -> dict[int, int]:
        """Trainer → the optimizer step that it has reached in its present attempt."""
        now = {pid: path for pid, path in self.attempts_begun() if pid in pids}
        return {pid: JobFolder(path).last_step() for pid, path in now.items()}

    def steps_done(self, pids: list[int]) -> dict[int, int]:
        """Trainer → how many optimizer steps it did in its present attempt."""
        now = {pid: path for pid, path in self.attempts_begun() if pid in pids}
        return {pid: len(JobFolder(path).read_history()) for pid, path in now.items()}

    # What must be true

    def verdict(self, tally: Tally, ended: Collection[int] = ()) -> None:
        """Adds the study's results, without the trials that somebody `ended` from outside."""
        slots = self.slots
        trials = [trial for trial in self.trials if trial.number not in ended]
        wanted = self.study.spec.searched.trials - len(ended)
        begun = self.attempts_begun()
        tally.trials += wanted
        whole = [trial for trial in trials if self._is_whole(trial)]
        failed = [trial for trial in trials if trial.state is TrialState.FAIL]
        tally.whole += len(whole)
        tally.failed += len(failed)
        tally.wrong += sum(trial.state is TrialState.COMPLETE for trial in trials) - len(whole)
        tally.lost += wanted + len(ended) - sum(slot.finished for slot in slots)
        tally.twice += (
            max(0, len(trials) - wanted)
            + max(0, len(slots) - wanted - len(ended))
            + len(begun)
            - len({folder for _, folder in begun})
        )
        tally.foreign += sum(not writers <= {pid} for pid, writers in self._writers(begun))
        tally.mistakes += sum("Traceback" in member.log.read_text() for member in self.everyone)
        tally.left += sum(_is_alive(pid) for pid, _ in begun)
        for trial in failed:
            tally.notes.append(f"trial {trial.number} failed: {trial.user_attrs.get('reason')}")

    def _is_whole(self, trial: FrozenTrial) -> bool:
        if trial.state is not TrialState.COMPLETE or RATE not in trial.params:
            return False
        budget = self.study.spec.budget
        expected = standin.expected_reports(trial.number, trial.params[RATE], budget.reports)
        return trial.intermediate_values == expected and trial.value == min(expected.values())

    @staticmethod
    def _writers(begun: list[tuple[int, Path]]) -> Iterator[tuple[int, set[int]]]:
        for pid, path in begun:
            yield pid, standin.writers(JobFolder(path))

    def close(self) -> None:
        for member in self.everyone:
            member.signal(signal.SIGCONT)
            for pid in [*member.trainers(), member.pid] if member.is_alive else []:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            member.process.join(10)
        self._look.close()
        self.store.close()


def _is_alive(pid: int) -> bool:
    """Of a stand-in: pids are given out again."""
    try:
        return b"bench.faults.standin" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@contextmanager
def scene(
    url: str, folder: Path, num_trials: int, environment: dict[str, str] | None = None, **spec: Any
) -> Iterator[Scene]:
    made = Scene(url, folder, num_trials, environment or {}, **spec)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def noted_stuck(tally: Tally, play: Scene) -> Iterator[None]:
    """What doesn't happen in time is counted, and the storm continues."""
    try:
        yield
    except Stuck as error:
        tally.other["stuck"] = tally.other.get("stuck", 0) + 1
        last = {member.log.name: member.log.read_text()[-500:] for member in play.alive}
        tally.notes.append(f"{error}: {last}")
