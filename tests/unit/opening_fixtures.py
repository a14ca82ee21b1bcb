"""A desk to work at: a study file with its rows, a store, and a trainer that inspects them as the test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from hpsearch.bridge.protocol import Done, Event, Phase
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.errors import StudyFileErrors
from hpsearch.folders import JobFolder, StorageFolder
from hpsearch.jobs import InspectionConfig, InspectionResult
from hpsearch.spec import StudyFile, load_study
from hpsearch.store import Store
from hpsearch.study.open import OpenStudy, open_study
from tests.unit.worker_fixtures import Play, ScriptedTrainer, Starter, nobody

FILE: dict[str, Any] = {
    "study": "demo",
    "task": "text-sft",
    "model": {"base": "tiny:qwen2"},
    "data": {"source": "rows.jsonl", "columns": {"question": "q", "answer": "a"}, "max_tokens": 10},
    "lora": {"target_modules": ["q_proj", "v_proj"]},
    "search": {
        "trials": 4,
        "space": {
            "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "lora.target_modules": [["q_proj", "v_proj"], "all-linear"],
        },
    },
}
NUM_ROWS = 20


def inspecting(
    *,
    num_tokens: list[int] | None = None,
    mistake: tuple[str, str] | None = None,
    unreachable: str | None = None,
    seen: list[InspectionConfig] | None = None,
) -> Play:
    """An inspection that by default finds short rows and three kinds of linear layers."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        del trainer
        config = folder.job()
        assert isinstance(config, InspectionConfig)
        if seen is not None:
            seen.append(config)
        rows = datasets.load_from_disk(str(config.candidate_rows))
        yield Phase(name="counting tokens", done=len(rows), total=len(rows))
        layers = {model.base: ["q_proj", "v_proj", "up_proj"] for model in config.models}
        counts = [5] * len(rows) if num_tokens is None else num_tokens
        folder.write_result(
            InspectionResult(num_tokens=counts, linear_layers=layers, mistake=mistake, unreachable=unreachable)
        )
        yield Done(clean=True)

    return play


class Desk:
    """A folder with a study file and its rows, and a store to open the study in."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.storage = StorageFolder(folder / "storage")
        self.told: list[str] = []
        self.write_rows([{"q": f"question {number}", "a": str(number)} for number in range(NUM_ROWS)])

    def write_rows(self, rows: list[dict[str, str]]) -> None:
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def file(self, *overrides: str) -> StudyFile:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(FILE, sort_keys=False))
        return load_study(path, list(overrides))

    def open(self, *overrides: str, start: StartTrainer = nobody, joins: bool = False) -> OpenStudy:
        return open_study(self.file(*overrides), self.store, self.storage, start, self.tell, joins=joins)

    def tell(self, name: str, done: int, total: int) -> None:
        self.told.append(f"{name} {done}/{total}")

    @property
    def budget(self) -> int:
        stored = self.store.studies.find("demo")
        assert stored is not None
        return stored.trials

    def refusal(self, *overrides: str, start: Starter) -> tuple[str, int | None, str]:
        """The one mistake with which the study is refused: key, line and words."""
        with pytest.raises(StudyFileErrors) as raised:
            self.open(*overrides, start=start)
        (mistake,) = raised.value.mistakes
        assert self.store.studies.all() == []
        assert all(trainer.ended for trainer in start.trainers)
        return mistake.key, mistake.line, mistake.message
