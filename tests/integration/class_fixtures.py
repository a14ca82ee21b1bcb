"""Colours to classify: rows, a trial on them, and a base with a new adapter and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hpsearch.spec.model import HeadSpec
from hpsearch.train.adapters import attach
from hpsearch.train.bases import Base
from hpsearch.train.encoding import Encoder
from hpsearch.train.tasks.classification import Classification
from hpsearch.trial import AnswersConfig, RowsConfig, TrialConfig, TrialResult
from tests.integration.conftest import changed, text_config

Rows = tuple[Path, Path]
CLASSES = ["dark blue", "green", "red"]
COLOURS = {"dark blue": (10, 20, 120), "green": (40, 200, 60), "red": (230, 30, 20)}
HEAD = HeadSpec(hidden=16, dropout=0.1, balance_beta=0.9)
ROWS = RowsConfig(row_format="question-answer", image_size=(28, 28), system_prompt=None, max_tokens=128)
FLOAT32 = torch.float32


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    config = text_config(rows, task="vlm-classify", model__base="tiny:qwen2.5-vl")
    return changed(config, **{"rows": ROWS, "answers": AnswersConfig(head=HEAD, classes=CLASSES), **changes})


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
