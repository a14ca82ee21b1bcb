"""Where things lie: every path of a trial's folder and of the storage folder, and writing that can't be torn."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, TypeAdapter, ValidationError

from hpsearch.errors import UnreadableFile
from hpsearch.jobs import JOB, Job, JobFailure
from hpsearch.trial import HistoryPoint, Report, TrialResult

log = logging.getLogger("hpsearch.folders")

_REPORTS: TypeAdapter[list[Report]] = TypeAdapter(list[Report])
RecordT = TypeVar("RecordT", bound=BaseModel)
T = TypeVar("T")


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
        """Every optimizer step in order; of a step that was done again after a kill, the last time."""
        if not self.history.exists():
            return []
        points = read_file(self.history, _points)
        return [point for _, point in sorted({point.step: point for point in points}.items())]

    def last_step(self) -> int:
        """The optimizer step that was done last, 0 before the first."""
        history = self.read_history()
        return history[-1].step if history else 0

    def read_journal(self) -> list[Report]:
        """Every report of the trial that this attempt knows: made by it, or before the checkpoint that it began at."""
        if not self.journal.exists():
            return []
        return [Report.model_validate_json(line) for line in self.journal.read_text().splitlines()]

    def result_if_whole(self) -> TrialResult | None:
        """A training's result; None where there is none, or none that this version can read."""
        try:
            return self.read(TrialResult) if self.result.exists() else None
        except UnreadableFile as error:
            log.warning("%s; it counts as missing", error)
            return None

    def answers(self, cell: str) -> Path:
        """An evaluation's answers, one JSON line for each row."""
        return self.path / f"{cell}.jsonl"

    def prepare(self, job: Job) -> None:
        """Writes the config. An earlier job's result goes first, so that nobody takes it for this one's."""
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
        """Where a stage keeps what must survive a kill; the only one has no folder of its own."""
        if num_stages == 1:
            return StageFolder(self.checkpoints, self.tensorboard)
        name = f"stage-{position + 1}"
        return StageFolder(self.checkpoints / name, self.tensorboard / name)

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, of the last stage that has one."""
        stages = sorted(self.checkpoints.glob("stage-*"), key=_number)
        found = [StageFolder(path, path).last_checkpoint() for path in (self.checkpoints, *stages)]
        return next((path for path in reversed(found) if path), None)


class TrialFolder:
    """A trial's attempts, each in a folder of its own: `attempt-1`, `attempt-2`, …

    An attempt belongs to one lease, and its trainer writes there and nowhere else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def attempt(self, number: int) -> JobFolder:
        return JobFolder(self.path / f"attempt-{number}")

    def begin(self, number: int) -> JobFolder:
        """The folder of a new attempt. One that is there already is another store's, of which this one is a copy: it
        stays, under another name."""
        folder = self.attempt(number)
        self.path.mkdir(parents=True, exist_ok=True)
        if folder.path.exists():
            folder.path.rename(draft_of(folder.path))
        return folder

    def drop_checkpoints(self) -> None:
        """Once the trial's result is told: nobody continues it."""
        for path in self.path.glob("attempt-*"):
            shutil.rmtree(JobFolder(path).checkpoints, ignore_errors=True)

    def before(self, number: int) -> list[JobFolder]:
        """The attempts before this one that there are, the latest first."""
        found = [path for path in self.path.glob("attempt-*") if _number(path) < number]
        return [JobFolder(path) for path in sorted(found, key=_number, reverse=True)]

    @property
    def last(self) -> JobFolder | None:
        numbers = [_number(path) for path in self.path.glob("attempt-*")]
        return self.attempt(max(numbers)) if numbers else None


class StageFolder:
    """Checkpoints of one stage of a training run, and how it ended."""

    def __init__(self, path: Path, tensorboard: Path) -> None:
        self.path = path
        self.tensorboard = tensorboard
        self.adapter = path / "adapter"
        self.done = path / "reports.json"

    def finish(self, reports: list[Report]) -> None:
        write_text(self.done, _REPORTS.dump_json(reports).decode())

    def reports(self) -> list[Report]:
        """Of this stage and those before it."""
        return read_file(self.done, _REPORTS.validate_json)

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint (transformers writes trainer_state.json last)."""
        found = [path.parent for path in self.path.glob("checkpoint-*/trainer_state.json")]
        return max(found, key=_number, default=None)


def _points(content: bytes) -> list[HistoryPoint]:
    return [HistoryPoint.model_validate_json(line) for line in content.splitlines()]


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def write_text(file: Path, text: str) -> None:
    """Replaces `file` at once: a reader sees the old text or the new, never half of it."""
    draft = draft_of(file)
    draft.write_text(text)
    draft.replace(file)


def draft_of(path: Path) -> Path:
    """A name beside `path` that is nobody else's, also where machines or containers share a folder: their process
    ids repeat."""
    return path.with_name(f".{path.name}.{uuid4().hex}")


def read_file(file: Path, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of a file of ours. Raises UnreadableFile, whatever is wrong with it."""
    try:
        content = file.read_bytes()
        return parse(content)
    except ValidationError as error:
        raise UnreadableFile(file, _first_mistake(error) if content else "it is empty") from None
    except OSError as error:
        raise UnreadableFile(file, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:  # of `json`, which knows no limit of its own
        raise UnreadableFile(file, str(error)) from None


def _first_mistake(error: ValidationError) -> str:
    """Without the value that was found: a file may hold what a message should not."""
    first, *more = error.errors(include_url=False, include_input=False, include_context=False)
    place = ".".join(map(str, first["loc"]))
    words = f"{place}: {first['msg']}" if place else first["msg"]
    return f"{words} (and {len(more)} more)" if more else words


def read_json(file: Path) -> dict[str, object]:
    """Raises UnreadableFile."""
    return read_file(file, _json_object)


def _json_object(content: bytes) -> dict[str, object]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {type(found).__name__}")
    return found


class StorageFolder:
    """Where files land, `./storage` unless said otherwise: the SQLite store, trials, final runs, prepared rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "hpsearch.db"
        self.artifacts = path / "artifacts"
        self.runs = path / "runs"

    def trial(self, study: str, number: int) -> TrialFolder:
        """`study` is its own id, so that no other study of that name, in whatever store, shares the folder."""
        return TrialFolder(self.path / "trials" / study / f"{number:04d}")

    def plots(self, study: str) -> Path:
        """Of the study as a whole; a run keeps its own."""
        return self.path / "plots" / study

    @property
    def diagnosis(self) -> JobFolder:
        return JobFolder(self.path / "diagnosis")

    def new_inspection(self, study: str) -> JobFolder:
        """A new folder at each call: workers that start together all inspect the same study."""
        folder = self.path / "inspections"
        folder.mkdir(parents=True, exist_ok=True)
        return JobFolder(Path(mkdtemp(prefix=f"{study}-", dir=folder)))

    def trainer_log(self, worker: str) -> Path:
        return self.path / "logs" / f"trainer-{worker}.txt"
