"""Every path in a trial's folder and in the storage folder, and the reading and writing of their records."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter

from hpsearch.errors import UnreadableFile
from hpsearch.files import draft_of, read_file, read_json, read_lines, write_text
from hpsearch.jobs import JOB, Job, JobFailure
from hpsearch.trial import HistoryPoint, Report, TrialResult

log = logging.getLogger("hpsearch.folders")

_REPORTS: TypeAdapter[list[Report]] = TypeAdapter(list[Report])
RecordT = TypeVar("RecordT", bound=BaseModel)
_TAIL_BYTES = 4096
"""Enough for the last two lines of a history."""


def quantized_bases() -> Path:
    """The trainers' shared folder of quantized bases: `$HPSEARCH_CACHE/quantized`, or `~/.cache/hpsearch/quantized`.

    It may be deleted at any time.
    """
    return _cache() / "quantized"


def mirrored_storage(url: str) -> Path:
    """The local folder of a storage folder that is a URL: `storage/<the URL's digest>`, beside the quantized bases. A
    worker's files are written here first, and then uploaded.
    """
    return _cache() / "storage" / blake2b(url.encode(), digest_size=8).hexdigest()


def _cache() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hpsearch"
    return Path(os.environ.get("HPSEARCH_CACHE", default))


class JobFolder:
    """Every path in a trial's folder. Only the trainer writes here, except for `config.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.result = path / "result.json"
        self.log = path / "log.txt"
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.history = path / "history.jsonl"
        self.journal = path / "journal.jsonl"

    def read_history(self) -> list[HistoryPoint]:
        """Every optimizer step in order; for a step that was repeated after a kill, the last time."""
        points = read_lines(self.history, HistoryPoint)
        return [point for _, point in sorted({point.step: point for point in points}.items())]

    def last_step(self) -> int:
        """The last optimizer step, 0 before the first; read from the end of the history only."""
        points = read_lines(self.history, HistoryPoint, of_last_bytes=_TAIL_BYTES)
        return points[-1].step if points else 0

    def read_journal(self) -> list[Report]:
        """Every report of the trial that this attempt knows: its own, and those before its first checkpoint."""
        return read_lines(self.journal, Report)

    def result_if_whole(self) -> TrialResult | None:
        """A training's result; None where there is none, or none that this version can read."""
        try:
            return self.read(TrialResult) if self.result.exists() else None
        except UnreadableFile as error:
            log.warning("%s; it counts as missing", error)
            return None

    def answers(self, cell: str) -> Path:
        """An evaluation's answers, one JSON line per row."""
        return self.path / f"{cell}.jsonl"

    def prepare(self, job: Job) -> None:
        """Writes the config. An earlier job's result is deleted first, so that it is not taken for this one's."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.result.unlink(missing_ok=True)
        write_text(self.config, job.model_dump_json(indent=2, context=self.path))

    def job(self) -> Job:
        return read_file(self.config, partial(JOB.validate_json, context=self.path))

    def read(self, kind: type[RecordT], file: Path | None = None) -> RecordT:
        return read_file(file or self.result, kind.model_validate_json)

    def failure(self) -> JobFailure | None:
        """Why the job failed; None where it didn't, or has no result yet."""
        if not self.result.exists() or not read_json(self.result).get("failed"):
            return None
        return self.read(JobFailure)

    def write_result(self, result: BaseModel) -> None:
        write_text(self.result, result.model_dump_json(indent=2))

    def stage(self, position: int, num_stages: int) -> StageFolder:
        """The part of a stage that must survive a kill; a single stage has no folder of its own."""
        if num_stages == 1:
            return StageFolder(self.checkpoints)
        return StageFolder(self.checkpoints / f"stage-{position + 1}")


class TrialFolder:
    """A trial's attempts, each in a folder of its own: `attempt-1`, `attempt-2`, …

    An attempt belongs to one lease, and its trainer writes there and nowhere else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def attempt(self, number: int) -> JobFolder:
        return JobFolder(self.path / f"attempt-{number}")

    def begin(self, number: int) -> JobFolder:
        """The folder of a new attempt. An existing one belongs to another store, of which this one is a copy: it is
        renamed and kept.
        """
        folder = self.attempt(number)
        self.path.mkdir(parents=True, exist_ok=True)
        if folder.path.exists():
            folder.path.rename(draft_of(folder.path))
        return folder

    def drop_checkpoints(self) -> None:
        """Called once the trial's result is stored: the trial will not be continued."""
        for path in self.path.glob("attempt-*"):
            shutil.rmtree(JobFolder(path).checkpoints, ignore_errors=True)

    def before(self, number: int) -> list[JobFolder]:
        """The earlier attempts that exist, the latest first."""
        found = [path for path in self.path.glob("attempt-*") if number_of(path) < number]
        return [JobFolder(path) for path in sorted(found, key=number_of, reverse=True)]

    @property
    def attempts(self) -> list[JobFolder]:
        """The attempts that exist, in order."""
        return [JobFolder(path) for path in sorted(self.path.glob("attempt-*"), key=number_of)]

    @property
    def last(self) -> JobFolder | None:
        numbers = [number_of(path) for path in self.path.glob("attempt-*")]
        return self.attempt(max(numbers)) if numbers else None


class StageFolder:
    """Checkpoints of one stage of a training run, and how it ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.done = path / "reports.json"

    def finish(self, reports: list[Report]) -> None:
        write_text(self.done, _REPORTS.dump_json(reports).decode())

    def checkpoints(self) -> list[Path]:
        """The newest first, complete or torn."""
        found = [path for path in self.path.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
        return sorted(found, key=number_of, reverse=True)


def number_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def why_unwritable(folder: Path) -> str | None:
    """Why nothing can be written there, found by writing: a read-only mount lets its owner ask and refuses later."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


class StorageFolder:
    """The folder of all files, `./storage` by default: the SQLite store, trials, final runs, prepared rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "hpsearch.db"
        self.artifacts = path / "artifacts"
        self.runs = path / "runs"
        self.features = path / "features"
        self.boards = path / "tensorboard"

    def why_unwritable(self) -> str | None:
        why = why_unwritable(self.path)
        return f"the storage folder {self.path} can't be written: {why}" if why else None

    def trial(self, study: str, number: int) -> TrialFolder:
        """`study` is its unique id, so that a study of the same name, in any store, never shares the folder."""
        return TrialFolder(self.path / "trials" / study / f"{number:04d}")

    def tensorboard(self, study: str) -> Path:
        """Event files of the trials of a study (by its id, as in `trial`); a final run has its own."""
        return self.boards / study

    def plots(self, study: str) -> Path:
        """Of the whole study; a run has its own."""
        return self.path / "plots" / study

    def logs(self, study: str) -> Path:
        """The logs of the study's workers and trainers, one file each."""
        return self.path / "logs" / study

    def worker_log(self, study: str, index: int) -> Path:
        """Of a worker that this process keeps: two `hpsearch run` at once, here or elsewhere, write into files of their
        own.
        """
        return self.logs(study) / f"worker-{index}-of-{socket.gethostname()}-{os.getpid()}.txt"

    @property
    def diagnosis(self) -> JobFolder:
        return JobFolder(self.path / "diagnosis")

    def new_inspection(self, study: str) -> JobFolder:
        """A new folder for each call: workers that start together all inspect the same study."""
        folder = self.path / "inspections"
        folder.mkdir(parents=True, exist_ok=True)
        return JobFolder(Path(mkdtemp(prefix=f"{study}-", dir=folder)))

    def trainer_log(self, worker: str, study: str = "") -> Path:
        """Output of the libraries in a trainer, besides its job's own log."""
        return self.logs(study) / f"trainer-{worker}.txt"
