"""Questions of three levels, and a look at which row training meets when."""

from __future__ import annotations

from typing import Any

import pytest

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import Row
from hpsearch.train.steps import StepCollator, StepRows
from tests.integration.stage_fixtures import Rows, level_of


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
