"""Measuring a study with real steps: the trials after it are what they would have been, and nothing of it is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpsearch.spec import load_study
from hpsearch.study.measure import file_s_own_trial, find_measurement, measure
from hpsearch.study.open import prepare_new
from hpsearch.trial import Outcome
from tests.integration.conftest import Driver
from tests.integration.workplaces import Workplace, photograph

TEXT = {"task": "text-sft", "model": {"base": "tiny:qwen2"}, "data": {"source": "rows.jsonl"}}
IMAGES = {
    "task": "vlm-sft",
    "model": {"base": "tiny:gemma3"},
    "data": {
        "source": "rows.jsonl",
        "image_size": [28, 28],
        "columns": {"image": "image", "question": "question", "answer": "answer"},
    },
}


@pytest.mark.parametrize("kind", [TEXT, IMAGES], ids=["text", "images"])
def test_a_trial_s_losses_are_the_same_with_and_without(tmp_path: Path, driver: Driver, kind: dict[str, Any]) -> None:
    place = Workplace(tmp_path, driver.process)
    file = load_study(_study(tmp_path, kind))
    study = prepare_new(file, place.storage, place.start, place.tell)
    config = file_s_own_trial(file, study, place.storage)
    without = driver.run(tmp_path / "without", config)
    images = set(place.storage.features.rglob("*"))

    found = measure(config, study, place.storage, "here", place.start, place.tell, file.spec.silence)
    assert set(place.storage.features.rglob("*")) == images
    assert list((place.storage.path / "inspections").iterdir()) == []

    after = driver.run(tmp_path / "after", config)
    assert without.outcome is after.outcome is Outcome.COMPLETE
    assert [report.loss for report in after.reports] == [report.loss for report in without.reports]
    assert _curve(tmp_path / "after") == _curve(tmp_path / "without")
    assert after.ledger is not None
    assert after.pace is not None
    assert after.ledger.closes, after.ledger.not_given_back
    assert find_measurement(config, study, place.storage, "here") == found
    assert found.tokens_per_row == pytest.approx(after.pace.tokens_per_row)
    assert found.checkpoint_bytes == pytest.approx(_size(next(_checkpoints(tmp_path / "after"))), rel=0.05)
    assert min(found.step_s, found.save_s, found.validation_row_s, found.rest_s) > 0
    assert (found.image_bytes > 0) is (kind is IMAGES)
    place.close()


def _study(folder: Path, kind: dict[str, Any]) -> Path:
    """Of 20 rows: as many are learned from as one pass of the measured steps takes."""
    rows = [{"question": f"Is {i} even?", "answer": "no" if i % 2 else "yes"} for i in range(20)]
    if kind is IMAGES:
        rows = [row | {"image": photograph(folder / f"{i}.png", i)} for i, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "study.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "study": "demo",
                **kind,
                "lora": {"r": 4, "dropout": 0.1},
                "training": {"batch_size": 8, "learning_rate": 1e-3},
                "budget": {"epochs": 2, "reports": 2},
                "search": {"trials": 1, "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2}}},
            }
        )
    )
    return file


def _curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (folder / "checkpoints").glob("checkpoint-*")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
