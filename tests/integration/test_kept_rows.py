"""A row is encoded once for all trials of a warm base, and what is kept of it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch.data.images import CheckedImage
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.encoding import Encoder
from hpsearch.train.kept_rows import KeptRows
from hpsearch.trial import GIB, CacheConfig, TrialConfig
from tests.integration.conftest import changed, text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]
NUM_ROWS = 32


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that are encoded, by their ids."""
    seen: list[str] = []
    encode = Encoder._encode

    def spy(encoder: Encoder, row: dict[str, Any], images: list[CheckedImage]) -> Any:
        seen.append(row["id"])
        return encode(encoder, row, images)

    monkeypatch.setattr(Encoder, "_encode", spy)
    return seen


def config_of(rows: Rows, task: str, base: str, folder: Path) -> TrialConfig:
    """Two passes over all rows."""
    budget = BudgetSpec(epochs=2, reports=1)
    images = CacheConfig(folder=folder / "features", limit_bytes=GIB)
    return text_config(rows, task=task, model__base=base, budget=budget, images=images, training__micro_batch=8)


@pytest.mark.parametrize(("task", "base"), [("text-sft", "tiny:qwen2"), ("vlm-sft", "tiny:qwen2.5-vl")])
def test_a_row_is_encoded_once_for_all_epochs_and_trials(
    text_rows: Rows, image_rows: Rows, tmp_path: Path, encoded: list[str], task: str, base: str
) -> None:
    inside = Inside()
    config = config_of(text_rows if task == "text-sft" else image_rows, task, base, tmp_path)
    first = inside.run(tmp_path / "first", config)
    assert set(encoded) == {str(number) for number in range(NUM_ROWS)}
    if task == "text-sft":
        assert len(encoded) == NUM_ROWS
    encoded.clear()
    again = inside.run(tmp_path / "again", config)
    assert encoded == []
    assert again.reports == first.reports
    assert again.ledger is not None
    assert again.ledger.closes, again.ledger.not_given_back
    inside.run(tmp_path / "prompted", config.model_copy(update={"rows": changed_prompt(config)}))
    assert len(set(encoded)) == NUM_ROWS, "other words come before each row"


def changed_prompt(config: TrialConfig) -> Any:
    return config.rows.model_copy(update={"system_prompt": "Be brief."})


def test_a_row_of_pixels_is_not_kept(image_rows: Rows, tmp_path: Path, encoded: list[str]) -> None:
    inside = Inside()
    config = changed(config_of(image_rows, "vlm-sft", "tiny:gemma3", tmp_path), lora__vision=True)
    inside.run(tmp_path / "first", changed(config, budget=BudgetSpec(max_steps=1, reports=1)))
    encoded.clear()
    inside.run(tmp_path / "again", changed(config, budget=BudgetSpec(max_steps=1, reports=1)))
    assert encoded


def test_no_more_is_kept_than_the_limit() -> None:
    kept = KeptRows(limit_bytes=100)
    tokens, labels = {"input_ids": torch.arange(10)}, torch.arange(10)
    for key in range(3):
        kept.keep(key, tokens, labels, 4, ())
    assert [kept.find(key) is not None for key in range(3)] == [True, False, False]
    found = kept.find(0)
    assert found is not None
    arrays, same = found.arrays()
    assert arrays["input_ids"].dtype is torch.long
    assert arrays["input_ids"].tolist() == same.tolist() == [*range(10)]
