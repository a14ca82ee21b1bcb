"""Colours to classify: rows, a trial on them, and a base with a new adapter and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.spec.model import HeadSpec
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base
from hpsearch.train.encoding import Encoder
from hpsearch.train.tasks import TASKS
from hpsearch.train.tasks.classification import Classification
from hpsearch.trial import AnswersConfig, RowsConfig, TrialConfig, TrialResult
from tests.integration.conftest import changed, text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]
CLASSES = ["dark blue", "green", "red"]
COLOURS = {"dark blue": (10, 20, 120), "green": (40, 200, 60), "red": (230, 30, 20)}
HEAD = HeadSpec(hidden=16, dropout=0.1, balance_beta=0.9)
ROWS = RowsConfig(row_format="question-answer", image_size=(28, 28), system_prompt=None, max_tokens=128)
FLOAT32 = torch.float32


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """(24 training rows: 12 red, 8 green, 4 dark blue; 9 validation rows), questions of different lengths."""
    folder = tmp_path_factory.mktemp("colours")
    labels = ["red", "green", "red", "green", "red", "dark blue"] * 4 + CLASSES * 3
    made = [_row(folder, number, label) for number, label in enumerate(labels)]
    write_rows(made[:24], folder / "train")
    write_rows(made[24:], folder / "validation")
    return folder / "train", folder / "validation"


def _row(folder: Path, number: int, label: str) -> Row:
    file = folder / f"{number}.png"
    Image.new("RGB", (28, 28), tuple(min(255, part + number) for part in COLOURS[label])).save(file)  # type: ignore[arg-type]
    messages = [
        {"role": "user", "content": "Which colour is it" + " and why" * (number % 3) + "?"},
        {"role": "assistant", "content": label},
    ]
    return Row(str(number), messages, (CheckedImage(file, str(number)),), None, label, None)


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    config = text_config(rows, task="vlm-classify", model__base="tiny:qwen2.5-vl")
    return changed(config, **{"rows": ROWS, "answers": AnswersConfig(head=HEAD, classes=CLASSES), **changes})


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


@pytest.fixture(scope="module")
def base(rows: Rows, inside: Inside) -> Base:
    return inside.bases.get(TASKS["vlm-classify"], config_of(rows).model)


@pytest.fixture
def validation_rows(rows: Rows) -> list[dict[str, Any]]:
    return list(Dataset.load_from_disk(str(rows[1])))


def skill_of(
    processor: Any, train: Dataset | None = None, head: HeadSpec = HEAD, *, has_images: bool = True
) -> Classification:
    encoder = Encoder(processor, ROWS, has_images=has_images)
    return Classification(encoder, AnswersConfig(head=head, classes=CLASSES), train)


def tuned(base: Base, rows: Rows, head: HeadSpec = HEAD) -> tuple[Any, Classification]:
    """A new adapter and a new head on the base, in evaluation mode."""
    torch.manual_seed(0)
    method = skill_of(base.fresh_processor(), Dataset.load_from_disk(str(rows[0])), head)
    model = attach(base.fresh_model(), config_of(rows).lora)
    method.extend(model)
    return model.eval(), method


def collate(method: Classification, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return method.batch([method.encode(row) for row in rows])


def losses(result: TrialResult) -> list[float]:
    return [report.loss for report in result.reports]
