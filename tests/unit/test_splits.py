"""Splits: shares, whole groups, labels in their shares; subsets. The data's own splits: test_split_columns.py."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import Splits, joined_groups, leakage_groups, split_rows, subset
from hpsearch.errors import FieldError
from hpsearch.spec.data import SplitByFraction

MakeRow = Callable[..., Row]


def drawn(rows: list[Row], train: float = 0.8, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Splits:
    splits = split_rows(ReadRows(rows), SplitByFraction(train=train, validation=validation, test=test, seed=seed))
    assert sorted(ids(row for part in splits.values() for row in part)) == sorted(ids(rows)), "lost or doubled"
    return splits


def ids(rows: Iterable[Row]) -> list[str]:
    return [row.id for row in rows]


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits["train"]), len(splits["validation"]), len(splits["test"])


def labels(rows: list[Row]) -> dict[str | None, int]:
    return dict(Counter(row.label for row in rows))


@pytest.mark.parametrize(
    ("num_rows", "shares", "expected"),
    [
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (100, (0.8, 0.1, 0.1), (80, 10, 10)),
        (101, (0.6, 0.2, 0.2), (61, 20, 20)),
        (1000, (0.98, 0.01, 0.01), (980, 10, 10)),
        (1000, (0.5, 0.1, 0.4), (500, 100, 400)),
        (1000, (0.1, 0.8, 0.1), (100, 800, 100)),
    ],
)
def test_each_split_has_its_share(
    row: MakeRow, num_rows: int, shares: tuple[float, float, float], expected: tuple[int, int, int]
) -> None:
    assert sizes(drawn([row(i) for i in range(num_rows)], *shares)) == expected


def test_rows_keep_their_order(row: MakeRow) -> None:
    for rows in drawn([row(i) for i in range(100)]).values():
        assert [int(row_id) for row_id in ids(rows)] == sorted(int(row_id) for row_id in ids(rows))


@pytest.mark.parametrize("num_rows", range(3, 11))
def test_tiny_data_has_a_row_for_every_split(row: MakeRow, num_rows: int) -> None:
    assert min(sizes(drawn([row(i) for i in range(num_rows)], 0.34, 0.33, 0.33))) >= 1


@pytest.mark.parametrize(("num_rows", "empty"), [(1, "validation"), (2, "test")])
def test_fewer_rows_than_splits_are_refused(row: MakeRow, num_rows: int, empty: str) -> None:
    with pytest.raises(FieldError) as raised:
        drawn([row(i) for i in range(num_rows)])
    assert raised.value.key == "data.split"
    assert raised.value.message == f"the {empty} split is empty ({num_rows} rows in all)"


def test_without_rows_the_reasons_are_counted() -> None:
    read = ReadRows([], {"empty answer": ["1", "2"], "no image": ["0"]})
    with pytest.raises(FieldError) as raised:
        split_rows(read, SplitByFraction())
    assert raised.value.key == "data.source"
    assert raised.value.message == "no rows are left: 2 × empty answer, 1 × no image"


def test_a_source_without_rows_is_reported_as_such() -> None:
    with pytest.raises(FieldError, match="no rows are left: the source has none"):
        split_rows(ReadRows([]), SplitByFraction())


def test_the_seed_decides_the_draw(row: MakeRow) -> None:
    rows = [row(i, label=str(i % 2)) for i in range(60)]
    assert drawn(rows, seed=3) == drawn(rows, seed=3)
    draws = [drawn(rows, seed=seed) for seed in range(5)]
    for name in ("train", "validation", "test"):
        assert len({tuple(ids(splits[name])) for splits in draws}) == 5  # type: ignore[index]


def test_the_seed_decides_the_draw_of_groups(row: MakeRow) -> None:
    rows = [row(i, group=str(i // 2)) for i in range(60)]
    assert drawn(rows, seed=3) == drawn(rows, seed=3)
    assert len({tuple(ids(drawn(rows, seed=seed)["test"])) for seed in range(5)}) > 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("num_groups", "group_size"), [(10, 2), (10, 7), (40, 3)])
def test_groups_stay_whole_and_splits_have_about_their_share(
    row: MakeRow, num_groups: int, group_size: int, seed: int
) -> None:
    num_rows = num_groups * group_size
    splits = drawn([row(i, group=f"g{i % num_groups}") for i in range(num_rows)], seed=seed)
    groups = [{row.group for row in rows} for rows in splits.values()]
    assert sum(map(len, groups)) == num_groups
    shares = [size / num_rows for size in sizes(splits)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_in_two_splits_even_where_groups_differ(row: MakeRow, seed: int) -> None:
    rows = [row(i, group=f"g{i}", seen=f"image{i // 3}") for i in range(60)]
    images = [{row.images for row in part} for part in drawn(rows, seed=seed).values()]
    assert sum(map(len, images)) == 20


def test_rows_hang_together_through_others(row: MakeRow) -> None:
    chain = [("A", "x"), ("B", "x"), ("B", "y"), ("C", "y"), ("C", None)]
    other = [("D", "z"), (None, "z")]
    alone = [(None, None), (None, None), ("E", "v"), ("x", None), (None, "A")]
    rows = [row(i, group=group, seen=image) for i, (group, image) in enumerate([*chain, *other, *alone])]
    numbers = leakage_groups(rows)
    assert numbers[:5] == [numbers[0]] * 5
    assert numbers[5:7] == [numbers[5]] * 2
    assert len(set(numbers)) == 2 + len(alone), "a group is no image, and nothing is no group"


def test_a_row_does_not_grow_by_being_split(row: MakeRow) -> None:
    """What ties it to others takes a kilobyte, and there may be a hundred thousand rows."""
    rows = [row(i, group="g") for i in range(10)]
    before = [dict(vars(row)) for row in rows]
    leakage_groups(rows)
    assert [vars(row) for row in rows] == before


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_groups_and_images_stays_in_one_split(row: MakeRow, seed: int) -> None:
    links = [(0, 0), (1, 0), (1, 1), (2, 1)]
    rows = [row(i, group=f"g{i // 4}.{links[i % 4][0]}", seen=f"i{i // 4}.{links[i % 4][1]}") for i in range(80)]
    chains = [{int(row.id) // 4 for row in part} for part in drawn(rows, seed=seed).values()]
    assert sum(map(len, chains)) == 20


def test_the_work_of_a_split_grows_with_the_rows_alone(row: MakeRow) -> None:
    """Counted are calls, of Python and C: scikit-learn's own class made 1,700 for each row here."""
    rows = [row(i, group=str(max(i, 2)), label=str(i % 7)) for i in range(1500)]
    drawn(rows[:30])  # imports what it needs
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:  # noqa: ARG001
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        drawn(rows)
    finally:
        sys.setprofile(None)
    assert calls < 100 * len(rows)


@pytest.mark.parametrize("seed", range(3))
def test_a_group_that_is_larger_than_a_small_split_is_not_drawn_into_it(row: MakeRow, seed: int) -> None:
    rows = [row(i, group=f"g{max(i, 199)}", label="ab"[i % 10 == 0]) for i in range(500)]
    splits = drawn(rows, seed=seed)
    assert sizes(splits) == (400, 50, 50)
    assert {name: labels(part)["b"] for name, part in splits.items()} == {"train": 40, "validation": 5, "test": 5}


@pytest.mark.parametrize("num_groups", [1, 2])
def test_fewer_groups_than_splits_are_refused(row: MakeRow, num_groups: int) -> None:
    with pytest.raises(FieldError, match="too few groups for each split to have one; rows of a group or image"):
        drawn([row(i, group=f"g{i % num_groups}") for i in range(10)])


def test_three_groups_are_enough_for_three_splits(row: MakeRow) -> None:
    splits = drawn([row(i, group="aaaaaabbbbcc"[i]) for i in range(12)], 0.7, 0.15, 0.15)
    assert {name: {row.group for row in rows} for name, rows in splits.items()} == {
        "train": {"a"},
        "validation": {"b"},
        "test": {"c"},
    }


@pytest.mark.parametrize("seed", range(3))
def test_labels_keep_their_shares(row: MakeRow, seed: int) -> None:
    splits = drawn([row(i, label="ab"[i % 10 == 0]) for i in range(300)], seed=seed)
    assert {name: labels(rows) for name, rows in splits.items()} == {
        "train": {"a": 216, "b": 24},
        "validation": {"a": 27, "b": 3},
        "test": {"a": 27, "b": 3},
    }


@pytest.mark.parametrize("seed", range(3))
def test_labels_keep_their_shares_where_groups_stay_whole(row: MakeRow, seed: int) -> None:
    rows = [row(i, group=str(i // 2), label="ab"[i // 2 % 5 == 0]) for i in range(400)]
    splits = drawn(rows, seed=seed)
    for part in splits.values():
        assert labels(part)["b"] / len(part) == pytest.approx(0.2, abs=0.051)


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("counts", [[30, 1], [30, 9, 1, 2], [9, 9, 9], [1] * 20, [40, 5]], ids=str)
def test_rare_labels_are_no_obstacle(row: MakeRow, counts: list[int], group_size: int) -> None:
    names = [f"label{number}" for number, count in enumerate(counts) for _ in range(count)]
    rows = [row(i, label=name, group=str(i // group_size)) for i, name in enumerate(names)]
    assert min(sizes(drawn(rows, 0.6, 0.2, 0.2))) >= 1


@pytest.mark.parametrize(
    ("num_rows", "fraction", "size"),
    [
        (100, 0.25, 25),
        (1000, 0.01, 10),
        (100, 0.001, 1),
        (10, 0.34, 3),
        (10, 0.99, 9),
        (3, 0.5, 2),
        (2, 0.1, 1),
        (7, 1.0, 7),
    ],
)
def test_a_subset_has_its_size_and_the_rows_order(row: MakeRow, num_rows: int, fraction: float, size: int) -> None:
    rows = [row(i) for i in range(num_rows)]
    part = subset(rows, fraction)
    assert len(part) == size
    assert part == [row for row in rows if row in part]


def test_a_subset_is_the_same_for_every_trial(row: MakeRow) -> None:
    rows = [row(i, label=str(i % 3)) for i in range(90)]
    assert subset(rows, 0.2) == subset(rows, 0.2)
    assert ids(subset(rows, 0.2)) != ids(rows[:18]), "not simply the first rows"


def test_a_subset_keeps_the_labels_shares(row: MakeRow) -> None:
    rows = [row(i, label="ab"[i % 10 == 0]) for i in range(300)]
    assert labels(subset(rows, 0.2)) == {"a": 54, "b": 6}
    assert labels(subset(rows, 0.5)) == {"a": 135, "b": 15}


def test_a_subset_may_be_smaller_than_the_number_of_labels(row: MakeRow) -> None:
    assert len(subset([row(i, label=str(i % 5)) for i in range(50)], 0.04)) == 2


@pytest.mark.parametrize("num_labels", [4, 20], ids=["ten rows of each label", "two rows of each label"])
def test_few_rows_of_each_label_in_groups_are_split_all_the_same(row: MakeRow, num_labels: int) -> None:
    rows = [row(str(i), group=f"patient {i // 2}", label=f"label {i % num_labels}") for i in range(40)]
    splits = drawn(rows)
    assert sizes(splits) == (32, 4, 4)
    groups = [{row.group for row in part} for part in splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 20, "a group is in two splits"


def test_groups_that_share_an_image_are_counted(row: MakeRow) -> None:
    rows = [row(i, group=f"P{i // 2}", seen="same" if i in (0, 2, 5) else str(i)) for i in range(10)]
    told = "3 groups (column patient) share an image with another one: they stay together, and count as 1"
    assert joined_groups(rows, "patient") == [told]
    assert joined_groups([row(i, group=f"P{i // 2}", seen=f"{i // 2}") for i in range(10)], "patient") == []
    assert joined_groups([row(0, group="P0", seen="same"), row(1, seen="same")], "patient") == [], "one is in no group"


def test_groups_that_share_a_text_are_counted(row: MakeRow) -> None:
    rows = [row(i, group=f"P{i}", messages=row(0).messages) for i in range(2)]
    told = "2 groups (column patient) share a text with another one: they stay together, and count as 1"
    assert joined_groups(rows, "patient") == [told]
