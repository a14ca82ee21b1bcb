"""A trial's losses do not depend on what ran before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import GIB, CacheConfig, Outcome, TrialConfig, TrialResult
from tests.integration.conftest import Driver, changed, text_config

pytestmark = pytest.mark.slow


def losses(result: TrialResult) -> list[float]:
    assert result.outcome is Outcome.COMPLETE, result.reason
    return [report.loss for report in result.reports]


def others(config: TrialConfig, number: int) -> TrialConfig:
    """Another trial: other rank, dropout, batch, length, and validations in the middle."""
    return changed(
        config,
        lora__r=(4, 16, 32)[number % 3],
        lora__dropout=(0.0, 0.3)[number % 2],
        lora__rslora=number % 4 == 0,
        training__batch_size=(2, 4, 8)[number % 3],
        training__gradient_checkpointing=number % 5 == 0,
        training__seed=number,
        budget=BudgetSpec(max_steps=1 + number % 3, reports=1 + number % 2),
    )


@pytest.mark.storm
def test_a_twentieth_trial_has_the_losses_of_a_first_one(
    driver: Driver,
    start_driver: Callable[[], Driver],
    text_rows: tuple[Path, Path],
    image_rows: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    """Of a language and of a vision-language model, whose trials alternate: each is loaded again and again, too."""
    configs = {
        "text": text_config(text_rows),
        "image": changed(
            text_config(image_rows), task="vlm-sft", model__base="tiny:gemma3", lora__vision=True, lora__dropout=0.2
        ),
    }
    for number in range(19):
        name = "text" if number < 7 or number > 15 else "image"
        losses(driver.run(tmp_path / str(number), others(configs[name], number)))
    kept = CacheConfig(folder=tmp_path / "features", limit_bytes=GIB)
    frozen = changed(configs["image"], lora__vision=False, images=kept, training__micro_batch=4)
    found = losses(driver.run(tmp_path / "frozen", frozen))
    files = {file: file.stat().st_ino for file in kept.folder.glob("*/*")}
    assert len(files) == 24, "the 16 training rows of four steps, and the 8 for validation"
    for name, config in configs.items():
        new = start_driver()
        fresh = losses(new.run(tmp_path / f"{name}-fresh", config))
        assert losses(driver.run(tmp_path / f"{name}-warm", config)) == fresh, "not bit for bit the same"
    assert losses(new.run(tmp_path / "frozen-elsewhere", frozen)) == found, "with features that another process left"
    assert {file: file.stat().st_ino for file in kept.folder.glob("*/*")} == files, "a tower was asked again"


@pytest.mark.storm
def test_another_seed_gives_other_losses(driver: Driver, text_rows: tuple[Path, Path], tmp_path: Path) -> None:
    first = losses(driver.run(tmp_path / "1", text_config(text_rows)))
    second = losses(driver.run(tmp_path / "2", text_config(text_rows, training__seed=7)))
    assert first != second
