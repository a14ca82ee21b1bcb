"""Rows of colours to classify, and a base for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.train.bases import Base
from hpsearch.train.tasks import TASKS
from tests.integration.class_fixtures import CLASSES, COLOURS, Rows, config_of
from tests.integration.inside import Inside


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


@pytest.fixture(scope="module")
def base(rows: Rows, inside: Inside) -> Base:
    return inside.bases.get(TASKS["vlm-classify"], config_of(rows).model)


@pytest.fixture
def validation_rows(rows: Rows) -> list[dict[str, Any]]:
    return list(Dataset.load_from_disk(str(rows[1])))
