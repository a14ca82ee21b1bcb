"""Splits that the data itself names, and those that are carved out of its train split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from hpsearch.data.manifest import make_manifest
from hpsearch.data.rows import LeftOut, ReadRows, Row
from hpsearch.data.split import Splits, in_unused_splits, split_rows
from hpsearch.errors import FieldError
from hpsearch.spec.data import SplitByColumn

MakeRow = Callable[..., Row]


def by_column(rows: list[Row], **spec: Any) -> tuple[Splits, LeftOut]:
    read, by = ReadRows(rows), SplitByColumn(column="part", **spec)
    return split_rows(read, by), read.without(in_unused_splits(rows, by)).left_out


def ids(splits: Splits) -> dict[str, list[str]]:
    return {name: [row.id for row in rows] for name, rows in splits.items()}


def parts(row: MakeRow, **counts: int) -> list[Row]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [row(i, split=name) for i, name in enumerate(names)]


def test_rows_go_where_the_data_says(row: MakeRow) -> None:
    splits, left_out = by_column(parts(row, test=2, validation=1, train=3))
    assert ids(splits) == {"train": ["3", "4", "5"], "validation": ["2"], "test": ["0", "1"]}
    assert left_out == {}


def test_the_data_may_call_its_splits_as_it_likes(row: MakeRow) -> None:
    rows = parts(row, learn=2, dev=1, exam=1)
    splits, _ = by_column(rows, train="learn", validation="dev", test="exam")
    assert ids(splits) == {"train": ["0", "1"], "validation": ["2"], "test": ["3"]}


def test_a_missing_validation_split_is_carved_out_of_train(row: MakeRow) -> None:
    rows = parts(row, train=80, test=20)
    splits, left_out = by_column(rows, validation=0.25)
    assert {name: len(part) for name, part in splits.items()} == {"train": 60, "validation": 20, "test": 20}
    assert splits["test"] == rows[80:]
    assert {*ids(splits)["train"], *ids(splits)["validation"]} == {str(i) for i in range(80)}
    assert left_out == {}


def test_both_shares_are_of_the_whole_train_split(row: MakeRow) -> None:
    splits, _ = by_column(parts(row, train=100), validation=0.3, test=0.2)
    assert {name: len(part) for name, part in splits.items()} == {"train": 50, "validation": 30, "test": 20}
    assert len({row_id for part in ids(splits).values() for row_id in part}) == 100


def test_carving_keeps_groups_whole_and_labels_in_their_shares(row: MakeRow) -> None:
    rows = [row(i, split="train", group=str(i // 4), label="ab"[i % 2]) for i in range(80)]
    splits, _ = by_column(rows, validation=0.2, test=0.2)
    assert sum(len({row.group for row in part}) for part in splits.values()) == 20
    assert {name: Counter(row.label for row in part) for name, part in splits.items()} == {
        "train": {"a": 24, "b": 24},
        "validation": {"a": 8, "b": 8},
        "test": {"a": 8, "b": 8},
    }


def test_the_seed_decides_what_is_carved_out(row: MakeRow) -> None:
    rows = parts(row, train=60, test=2)
    assert by_column(rows, validation=0.1, seed=1) == by_column(rows, validation=0.1, seed=1)
    assert len({tuple(ids(by_column(rows, validation=0.1, seed=seed)[0])["validation"]) for seed in range(4)}) == 4


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_that_no_row_names_is_refused_with_those_that_exist(row: MakeRow, split: str) -> None:
    with pytest.raises(FieldError) as raised:
        by_column(parts(row, train=2, validation=2, test=2), **{split: "dev"})
    assert raised.value.key == f"data.split.{split}"
    assert raised.value.message == "no row says 'dev' in column 'part'; found: test, train, validation"


def test_a_column_of_many_values_is_not_listed_whole(row: MakeRow) -> None:
    with pytest.raises(FieldError) as raised:
        by_column([row(i, split=f"P{i:03}") for i in range(150)])
    assert raised.value.message.endswith("found: P000, P001, P002, P003, P004, P005, P006, P007 … (150 values in all)")


def test_splits_that_the_study_does_not_use_are_left_out_and_named(row: MakeRow) -> None:
    rows = [*parts(row, train=8, test=2, validation=2, extra=2), row(99), row(100)]
    splits, left_out = by_column(rows, validation=0.25)
    assert left_out == {
        "in split 'validation', which the study does not use": ["10", "11"],
        "in split 'extra', which the study does not use": ["12", "13"],
        "in split None, which the study does not use": ["99", "100"],
    }
    assert sum(len(part) for part in splits.values()) == 10


def test_nothing_is_left_to_carve_out_of_one_row(row: MakeRow) -> None:
    with pytest.raises(FieldError) as raised:
        by_column(parts(row, train=1, test=2), validation=0.5)
    assert raised.value.key == "data.split"
    assert raised.value.message == "the validation split is empty (3 rows in all)"


@pytest.mark.parametrize("tie", ["group", "image"])
def test_the_data_s_own_splits_may_not_share_a_group_or_an_image(row: MakeRow, tie: str) -> None:
    field = {"group": "group", "image": "seen"}[tie]
    rows = parts(row, train=3, validation=1, test=1)
    rows[1], rows[4] = row(1, split="train", **{field: "x"}), row(4, split="test", **{field: "x"})
    splits, left_out = by_column(rows)
    with pytest.raises(FieldError, match=f"train and test overlap: rows '1' and '4' share the same {tie}"):
        make_manifest(splits, left_out)


def test_one_name_can_not_stand_for_two_splits(row: MakeRow) -> None:
    splits, left_out = by_column(parts(row, train=3, test=1), validation="test")
    with pytest.raises(FieldError, match="overlap: rows '3' and '3' share the same row"):
        make_manifest(splits, left_out)
