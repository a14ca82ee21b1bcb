"""The real data sets: every row is read or left out for a reason that is known beforehand, and no group is split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.manifest import Manifest, make_manifest
from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import Splits, split_rows
from hpsearch.spec.data import SplitByColumn, SplitByFraction
from tests.conftest import SHARED_DATA

pytestmark = [
    pytest.mark.needs_shared_data,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the real data sets are not in {SHARED_DATA}"),
]

Read = Callable[..., ReadRows]
MEDQUAD = {"question": "question", "answer": "answer", "id": "id", "group": "doc", "label": "qtype"}
BCCD = {"image": "image", "question": "question", "answer": "answer", "group": "group", "label": "qtype"}


def shared(*parts: str) -> str:
    path = SHARED_DATA.joinpath(*parts)
    assert path.exists(), f"{path} is part of the real data"
    return str(path)


def shares(splits: Splits) -> list[float]:
    total = sum(len(rows) for rows in splits.values())
    return [len(splits[name]) / total for name in ("train", "validation", "test")]


def num_apart(splits: Splits, key: Callable[[Row], str | None]) -> int:
    """How many values of `key` there are, counted for each split on its own."""
    return sum(len({key(row) for row in rows}) for rows in splits.values())


def test_medquad_loses_its_48_duplicates_and_keeps_its_documents_whole(read: Read) -> None:
    found = read(shared("medquad", "medquad.jsonl"), columns=MEDQUAD)
    assert len(found.rows) == 3271
    assert {reason: len(ids) for reason, ids in found.left_out.items()} == {"duplicate of another row": 48}
    splits = split_rows(found, SplitByFraction())
    assert shares(splits) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert num_apart(splits, lambda row: row.group) == len({row.group for row in found.rows}) == 528
    for rows in splits.values():
        by_label = Counter(row.label for row in rows)
        assert by_label["information"] / len(rows) == pytest.approx(866 / 3271, abs=0.02)
        assert by_label["treatment"] / len(rows) == pytest.approx(618 / 3271, abs=0.02)
    manifest = make_manifest(splits, found.left_out)
    assert Manifest.from_bytes(manifest.to_bytes()).rows_of(found) == splits


def test_of_the_quirks_45_empty_answers_are_left_out_by_name(read: Read) -> None:
    source = shared("medquad", "medquad_quirks.jsonl")
    found = read(source, columns=MEDQUAD)
    lines = [json.loads(line) for line in Path(source).read_text().splitlines()]
    assert found.left_out == {"empty answer": [line["id"] for line in lines if not line["answer"]]}
    assert len(found.left_out["empty answer"]) == 45
    assert len(found.rows) == len(lines) - 45 == 126
    splits = split_rows(found, SplitByFraction())
    assert num_apart(splits, lambda row: row.group) == len({row.group for row in found.rows})


def test_no_photograph_s_questions_are_in_two_splits_even_without_a_group_column(read: Read) -> None:
    columns = {role: name for role, name in BCCD.items() if role != "group"}
    found = read(shared("bccd", "bccd_vqa.jsonl"), columns=columns)
    assert len(found.rows) == 1456
    assert found.left_out == {}
    splits = split_rows(found, SplitByFraction())
    assert shares(splits) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert num_apart(splits, lambda row: row.images) == len({row.images for row in found.rows}) == 364


def test_the_repository_s_own_splits_share_no_photograph(read: Read) -> None:
    split = SplitByColumn(column="split", validation="val")
    found = read(shared("bccd", "bccd_vqa.jsonl"), columns=BCCD, split=split)
    splits = split_rows(found, split)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 820, "validation": 348, "test": 288}
    make_manifest(splits, found.left_out)
    assert num_apart(splits, lambda row: row.group) == 364


def test_no_photograph_s_crops_are_in_two_splits(read: Read, write_jsonl: Callable[[str, list[Any]], str]) -> None:
    crops = [json.loads(line) for line in Path(shared("bccd", "bccd_crops.jsonl")).read_text().splitlines()]
    source = write_jsonl("crops.jsonl", [crop | {"question": "Which cell is this?"} for crop in crops])
    columns = BCCD | {"answer": "label", "label": "label"}
    found = read(source, columns=columns, images=shared("bccd"))
    assert len(found.rows) == 1433
    assert found.left_out == {}
    splits = split_rows(found, SplitByFraction())
    assert shares(splits) == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert num_apart(splits, lambda row: row.group) == len({crop["group"] for crop in crops})
    for rows in splits.values():
        assert Counter(row.label for row in rows)["platelet"] / len(rows) == pytest.approx(361 / 1433, abs=0.02)
