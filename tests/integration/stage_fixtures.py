"""Questions of three levels, a trial that learns them in stages, and a look at which row it meets when."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from hpsearch.spec.curriculum import CurriculumSpec, StageSpec
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import TrialConfig
from tests.integration.conftest import text_config

Rows = tuple[Path, Path]
LEVELS = ["easy", "easy", "easy", "medium", "medium", "hard"]
"""Of six rows; the next six have the same, and so on."""


def curriculum(**more: Any) -> CurriculumSpec:
    return CurriculumSpec(stages=[StageSpec(name=name) for name in ("easy", "medium", "hard")], **more)


def config_of(rows: Rows, **changes: Any) -> TrialConfig:
    """Six steps (three easy, two medium, one hard) with a report at each, unless changed."""
    whole: dict[str, Any] = {"curriculum": curriculum(), "budget": BudgetSpec(reports=6), **changes}
    return text_config(rows, task="text-curriculum", training__lr_scheduler="constant", **whole)


def levels(met: list[list[str]]) -> list[str]:
    return [level_of(row_id) for batch in met for row_id in batch]


def counted(met: list[list[str]]) -> Counter[str]:
    return Counter(row_id for batch in met for row_id in batch)


def level_of(row_id: str) -> str:
    return LEVELS[int(row_id) % 6]
