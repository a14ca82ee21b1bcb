"""Questions of three levels, a trial that learns them in stages, and a look at which row it meets when."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.spec.curriculum import CurriculumSpec, StageSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.train.steps import StepCollator, StepRows
from hpsearch.trial import TrialConfig
from tests.integration.conftest import text_config
from tests.integration.inside import Inside

Rows = tuple[Path, Path]
LEVELS = ["easy", "easy", "easy", "medium", "medium", "hard"]
"""Of six rows; the next six have the same, and so on."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """(12 easy, 8 medium and 4 hard training rows, mixed; 6 validation rows)"""
    folder = tmp_path_factory.mktemp("stages")
    write_rows([_row(number) for number in range(24)], folder / "train")
    write_rows([_row(number) for number in range(24, 30)], folder / "validation")
    return folder / "train", folder / "validation"


def _row(number: int) -> Row:
    question, answer = f"Is {number} even or odd?", "even" if number % 2 == 0 else "odd"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Row(str(number), messages, (), group=None, label=None, split=None, stage=level_of(str(number)))


def curriculum(**more: Any) -> CurriculumSpec:
    return CurriculumSpec(stages=[StageSpec(name=name) for name in ("easy", "medium", "hard")], **more)


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    """Six steps (three easy, two medium, one hard) with a report at each, unless changed."""
    whole: dict[str, Any] = {"curriculum": curriculum(), "budget": BudgetSpec(reports=6), **changes}
    return text_config(rows, task="text-curriculum", training__lr_scheduler="constant", **whole)


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the rows of each training batch, as they come."""
    batches: list[list[str]] = []

    def spy(collator: StepCollator, rows: list[dict[str, Any]]) -> StepRows:
        batches.append([row["id"] for row in rows])
        return collate(collator, rows)

    collate = StepCollator.__call__
    monkeypatch.setattr(StepCollator, "__call__", spy)
    return batches


def levels(met: list[list[str]]) -> list[str]:
    return [level_of(row_id) for batch in met for row_id in batch]


def counted(met: list[list[str]]) -> Counter[str]:
    return Counter(row_id for batch in met for row_id in batch)


def level_of(row_id: str) -> str:
    return LEVELS[int(row_id) % 6]
