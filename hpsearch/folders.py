"""Where things lie: every path of a trial's folder and of the storage folder, and writing that can't be torn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from hpsearch.jobs import JOB, Job

RecordT = TypeVar("RecordT", bound=BaseModel)


class TrialFolder:
    """Every path in a trial's folder. Only the trainer writes here, except for `config.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.result = path / "result.json"
        self.log = path / "log.txt"
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"

    def prepare(self, job: Job) -> None:
        """Writes the config; a config that is there already must say the same."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, job.model_dump_json(indent=2))

    def job(self) -> Job:
        return JOB.validate_json(self.config.read_text())

    def read(self, kind: type[RecordT], file: Path | None = None) -> RecordT:
        return kind.model_validate_json((file or self.result).read_text())

    def write_result(self, result: BaseModel) -> None:
        write_text(self.result, result.model_dump_json(indent=2))

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint (transformers writes trainer_state.json last)."""
        found = [path.parent for path in self.checkpoints.glob("checkpoint-*/trainer_state.json")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def write_text(file: Path, text: str) -> None:
    """Replaces `file` at once: a reader sees the old text or the new, never half of it."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(file)


def read_json(file: Path) -> dict[str, object]:
    content = json.loads(file.read_text())
    assert isinstance(content, dict)
    return content


class StorageFolder:
    """Where files land, `./storage` unless said otherwise: the SQLite store, trials, final runs, prepared rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "hpsearch.db"
        self.artifacts = path / "artifacts"
        self.runs = path / "runs"

    def trial(self, study: str, number: int) -> TrialFolder:
        return TrialFolder(self.path / "trials" / study / f"{number:04d}")

    @property
    def diagnosis(self) -> TrialFolder:
        return TrialFolder(self.path / "diagnosis")

    def inspection(self, study: str) -> TrialFolder:
        return TrialFolder(self.path / "inspections" / study)

    def trainer_log(self, worker: str) -> Path:
        return self.path / "logs" / f"trainer-{worker}.txt"
