"""Dividing rows doesn't change what was read: each step returns the rows that it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.divide import divide, keep_held_out
from hpsearch.data.manifest import make_manifest
from hpsearch.data.rows import ReadRows, Row
from hpsearch.errors import FieldError
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec

MakeRow = Callable[..., Row]
COLUMNS = {"question": "q", "answer": "a", "label": "kind", "stage": "level"}
STAGES = CurriculumSpec.model_validate({"stages": [{"name": "easy"}, {"name": "hard"}]})
NO_STAGE = "'none' is in no stage of the curriculum"
BY_COLUMN: dict[str, Any] = {"split": {"column": "part"}, "balance": "smallest"}
AROUND_HELD_OUT: dict[str, Any] = {"held_out": "shared.json", "balance": "smallest"}


def rows(make: MakeRow) -> tuple[Row, ...]:
    """At least one row for each reason for which a step leaves rows out."""
    parts = ("train", "train", "validation", "test", "dev")
    labels = ("cat", "cat", "dog")
    levels = ("easy", "hard", "easy", "hard", "easy", "hard", "none")
    return tuple(make(i, split=parts[i % 5], label=labels[i % 3], stage=levels[i % 7]) for i in range(210))


@pytest.mark.parametrize("data", [BY_COLUMN, AROUND_HELD_OUT], ids=["by column", "around a held-out set"])
def test_what_was_read_stays_as_it_was_and_every_row_is_accounted_for(
    row: MakeRow, tmp_path: Path, data: dict[str, Any]
) -> None:
    spec = DataSpec.model_validate({"source": "rows.jsonl", "columns": COLUMNS, **data})
    read = ReadRows(rows(row), {"empty answer": ["x"]})
    splits, left_out = divide(read, spec, STAGES, tmp_path)
    keep_held_out(make_manifest(splits, left_out), spec, tmp_path)
    tied = row(900, messages=splits["test"][0].messages, stage="easy", split="dev", label="cat")
    read = ReadRows((*read.rows, tied), read.left_out)
    splits, left_out = divide(read, spec, STAGES, tmp_path)
    assert read == ReadRows((*rows(row), tied), {"empty answer": ["x"]})
    assert divide(read, spec, STAGES, tmp_path) == (splits, left_out)
    assert list(left_out)[:2] == ["empty answer", NO_STAGE], "in the order of the steps"
    assert len(left_out) == 4
    ids = [row.id for part in splits.values() for row in part] + [row_id for ids in left_out.values() for row_id in ids]
    assert sorted(ids) == sorted(["x", *(row.id for row in read.rows)]), "once each"


def test_rows_that_were_read_can_not_be_exchanged(row: MakeRow) -> None:
    read = ReadRows((row(0), row(1)), {"empty answer": ["2"]})
    fewer = read.without({"1": "too long", "7": "not there"}).without({"0": "empty answer"})
    assert fewer == ReadRows((), {"empty answer": ["2", "0"], "too long": ["1"]})
    assert read == ReadRows((row(0), row(1)), {"empty answer": ["2"]})
    with pytest.raises(FrozenInstanceError):
        read.rows = ()  # type: ignore[misc]


def test_too_few_groups_name_the_column_of_the_groups(row: MakeRow, tmp_path: Path) -> None:
    spec = DataSpec.model_validate({"source": "rows.jsonl", "columns": {"question": "q", "answer": "a", "group": "l"}})
    read = ReadRows([row(i, group="en" if i % 2 else "de") for i in range(20)], {})
    with pytest.raises(FieldError) as raised:
        divide(read, spec, CurriculumSpec(), tmp_path)
    assert raised.value.key == "data.columns.group"
    assert raised.value.message.startswith("column 'l' has 2 groups, and each split needs one of its own")
    with pytest.raises(FieldError, match="column 'l' has 1 group, and"):
        divide(ReadRows([row(i, group="en") for i in range(20)], {}), spec, CurriculumSpec(), tmp_path)
    spec = DataSpec.model_validate({"source": "rows.jsonl", "columns": {"question": "q", "answer": "a"}})
    tied = ReadRows([row(i, seen="same") for i in range(20)], {})
    with pytest.raises(FieldError, match="too few groups for each split to have one") as raised:
        divide(tied, spec, CurriculumSpec(), tmp_path)
    assert raised.value.key == "data.split", "there is no column of groups"
