"""A kill at each write of a checkpoint: whatever was being written, the trial continues and ends with the same bits.

    python -m bench.faults.checkpoints --kills 200 --seed 0

A trial of `tiny:qwen2` saves after every step. Its process is killed (SIGKILL) right before one of its calls that
write: in three of four cases at a call drawn from all of a whole trial's, else at a moment drawn from its time, which
also hits the middle of a file. The next attempt begins in a folder of its own and may be killed as well; the last of
four is left alone. Then the losses, the weights and the optimizer's state must be those of a trial that nobody killed,
bit for bit, and no attempt may have touched a byte of another's folder.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

import transformers

from hpsearch.bridge.protocol import Reported
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.spec.training import BudgetSpec, TrainingSpec
from hpsearch.train import reporter
from hpsearch.train.bases import Bases
from hpsearch.train.channel import Channel
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.loop import run_trial
from hpsearch.train.serve import log_to
from hpsearch.train.tasks import TASKS
from hpsearch.trial import Outcome, Record, RowsConfig, TrialConfig, TrialResult

NUM_STEPS = 6
MOST_ATTEMPTS = 4
WRITES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")
"""Calls of `os`; every file is synced, so each of them is one."""


class Agreeing(Channel):
    """A worker that lets every report pass."""

    def __init__(self) -> None:
        pass

    def send(self, event: Record) -> None:
        pass

    def report(self, event: Reported) -> bool:
        del event
        return True

    @property
    def stop_wanted(self) -> bool:
        return False


@contextmanager
def before_each_write(act: Callable[[int], None]) -> Iterator[None]:
    """Calls `act` with 0, 1, … before the calls that write."""
    count = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            act(count)
            count += 1
            return write(*arguments, **more)

        return call

    with mock.patch.multiple(os, **{name: counted(getattr(os, name)) for name in WRITES}):
        yield


def train(config: TrialConfig, folder: JobFolder, bases: Bases, channel: Channel | None = None) -> TrialResult:
    """One attempt, in this process."""
    folder.prepare(config)
    result = run_trial(config, folder, bases, LedgerBook(), channel or Agreeing())
    folder.write_result(result)
    return result


def in_child(act: Callable[[], object], log: Path, after_s: float | None = None) -> int:
    """Does it in a fork of this process, which is killed after so many seconds if it still runs; its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            log_to(log)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (a test has put its own there)
            act()
            status = 0
        finally:
            os._exit(status)
    killing = threading.Timer(after_s, os.kill, (child, signal.SIGKILL)) if after_s is not None else None
    if killing:
        killing.start()
    status = os.waitpid(child, 0)[1]
    if killing:
        killing.cancel()
    return os.waitstatus_to_exitcode(status)


def killed_at(write: int) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number == write:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def what_it_learned(folder: JobFolder) -> dict[str, str]:
    """Digests of its reports, its history, and all of the last checkpoint that must not depend on a kill."""
    last = folder.checkpoints / f"checkpoint-{NUM_STEPS}"
    names = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    digests = {name: _digest(last / name) for name in names}
    history = [point.model_dump_json() for point in folder.read_history()]
    return digests | {"journal": _digest(folder.journal), "history": "\n".join(history)}


def tree_of(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): _digest(file) for file in sorted(path.rglob("*")) if file.is_file()}


def _digest(file: Path) -> str:
    return blake2b(file.read_bytes()).hexdigest()


def config_of(rows: Path, earlier: list[Path]) -> TrialConfig:
    return TrialConfig(
        name="storm",
        task="text-sft",
        model=ModelSpec(base="tiny:qwen2"),
        lora=LoraSpec(r=4, alpha=8, dropout=0.1),
        training=TrainingSpec(
            learning_rate=1e-3,
            batch_size=2,
            gradient_checkpointing=False,
            evaluation_batch_size=2,
        ),
        budget=BudgetSpec(max_steps=NUM_STEPS, reports=3),
        rows=RowsConfig(row_format="question-answer", image_size=None, system_prompt=None, max_tokens=64),
        train_rows=rows / "train",
        validation_rows=rows / "validation",
        earlier=earlier,
    )


def _said(role: str, content: str) -> Any:
    return {"role": role, "content": content}


def write_questions(folder: Path) -> Path:
    rows = [
        Row(str(i), [_said("user", f"Is {i} even or odd?"), _said("assistant", answer)], (), None, None, None)
        for i, answer in enumerate(["even", "odd"] * 10)
    ]
    write_rows(rows[:16], folder / "train")
    write_rows(rows[16:], folder / "validation")
    return folder


@dataclass
class Counts:
    kills: int = 0
    trials: int = 0
    not_whole: int = 0
    not_bitwise: int = 0
    touched: int = 0
    repeated_steps: int = 0
    """At most, after one kill."""

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.trials} trials: {self.not_whole} not resumed to their end, "
            f"{self.not_bitwise} not bitwise equal, {self.touched} folders of another attempt touched, "
            f"at most {self.repeated_steps} steps repeated after a kill"
        )


class Storm:
    """Trials on a warm base that are killed, against one that is not."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._rows = write_questions(folder / "rows")
        self._bases = Bases(lambda *_: None)
        self.counts = Counts()
        self.num_writes, self.seconds = self._measure()

    def _measure(self) -> tuple[int, float]:
        """How often an unharmed trial writes, and how long it takes."""
        whole, count = JobFolder(self._folder / "whole"), self._folder / "count"
        config = config_of(self._rows, [])
        self._bases.get(TASKS[config.task], config.model)  # loaded once, for every fork

        def counted() -> None:
            with before_each_write(lambda number: numbers.append(number)):
                train(config, whole, self._bases)
            count.write_text(str(len(numbers)))

        numbers: list[int] = []
        started = time.monotonic()
        if in_child(counted, whole.log) != 0:
            raise RuntimeError(f"the unharmed trial failed: see {whole.log}")
        self.wanted = what_it_learned(whole)
        return int(count.read_text()), time.monotonic() - started

    def trial(self) -> None:
        """Kills a trial one to three times."""
        trial = TrialFolder(self._folder / f"trial-{self.counts.trials}")
        self.counts.trials += 1
        earlier: list[JobFolder] = []
        for number in range(1, MOST_ATTEMPTS + 1):
            before = {folder.path: tree_of(folder.path) for folder in earlier}
            folder = trial.attempt(number)
            is_killed = self._attempt(folder, earlier, spare=number == MOST_ATTEMPTS)
            self.counts.touched += sum(tree_of(path) != tree for path, tree in before.items())
            if not is_killed:
                self._judge(folder)
                break
            earlier.insert(0, folder)
        shutil.rmtree(trial.path)

    def _attempt(self, folder: JobFolder, earlier: list[JobFolder], *, spare: bool) -> bool:
        """Whether it was killed."""
        at_write = self._random.randrange(self.num_writes)
        moment = self._random.uniform(0, self.seconds) if self._random.random() < 0.25 else None
        config = config_of(self._rows, [other.path for other in earlier])

        def killed() -> None:
            act = (lambda _: None) if spare or moment is not None else killed_at(at_write)
            with before_each_write(act):
                train(config, folder, self._bases)

        status = in_child(killed, folder.log, None if spare else moment)
        self.counts.kills += status == -signal.SIGKILL
        began = _began_at(folder.log.read_text())
        if earlier and began is not None:
            repeated = max(other.last_step() for other in earlier) - began
            self.counts.repeated_steps = max(self.counts.repeated_steps, repeated)
        return status == -signal.SIGKILL

    def _judge(self, folder: JobFolder) -> None:
        if not folder.result.exists() or folder.read(TrialResult).outcome is not Outcome.COMPLETE:
            self.counts.not_whole += 1
        elif what_it_learned(folder) != self.wanted:
            self.counts.not_bitwise += 1


def _began_at(log: str) -> int | None:
    """By the trainer's words; None: it was killed before it said so."""
    if "training begins at the first step" in log:
        return 0
    said = re.findall(r"^training continues from step (\d+),", log, re.MULTILINE)
    return int(said[-1]) if said else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    with (
        tempfile.TemporaryDirectory(prefix="hpsearch-storm-") as folder,
        mock.patch.object(reporter, "SECONDS_BETWEEN_CHECKPOINTS", 0.0),
    ):
        storm = Storm(Path(folder), asked.seed)
        while storm.counts.kills < asked.kills:
            storm.trial()
            if sys.stderr.isatty():
                print(storm.counts, end="\r", file=sys.stderr)
    print(f"seed {asked.seed}, {storm.num_writes} writes in an unharmed trial: {storm.counts}")
    counts = storm.counts
    return int(bool(counts.not_whole or counts.not_bitwise or counts.touched))


if __name__ == "__main__":
    sys.exit(main())
