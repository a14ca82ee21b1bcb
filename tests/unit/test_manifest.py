"""Manifests: what they say survives storing, and data that is no longer what it was is noticed and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.images import CheckedImage
from hpsearch.data.manifest import Manifest, check_disjoint, make_manifest
from hpsearch.data.places import Places
from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import Splits
from hpsearch.errors import FieldError

MakeRow = Callable[..., Row]


@pytest.fixture
def splits(row: MakeRow) -> Splits:
    rows = [row(i) for i in range(10)]
    return {"train": rows[:6], "validation": rows[6:8], "test": rows[8:]}


def complaint(manifest: Manifest, rows: list[Row]) -> str:
    with pytest.raises(FieldError) as raised:
        manifest.rows_of(ReadRows(rows))
    assert raised.value.key == "data.source"
    start, end = "the data is not what it was when the study was created: ", "Bring the old data back, or"
    assert raised.value.message.startswith(start)
    assert end in raised.value.message
    return raised.value.message.removeprefix(start).partition(f". {end}")[0]


def all_rows(splits: Splits) -> list[Row]:
    return [row for rows in splits.values() for row in rows]


def test_a_manifest_names_each_row_with_its_checksum(splits: Splits) -> None:
    manifest = make_manifest(splits, {"empty answer": ["x"]})
    assert {name: len(keys) for name, keys in manifest.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert manifest.splits["test"] == [(row.id, row.sha256) for row in splits["test"]]


def test_a_stored_manifest_comes_back_whole(splits: Splits) -> None:
    manifest = make_manifest(splits, {"empty answer": ["ä", "b"]})
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.sha256 == manifest.sha256
    assert again.to_bytes() == manifest.to_bytes(), "the same manifest is the same bytes, whenever it is written"


def moved(splits: Splits) -> Splits:
    return splits | {"train": splits["train"][:-1], "validation": [splits["train"][-1], *splits["validation"]]}


def reordered(splits: Splits) -> Splits:
    return splits | {"train": splits["train"][::-1]}


def swapped(splits: Splits) -> Splits:
    return splits | {"validation": splits["test"], "test": splits["validation"]}


def shortened(splits: Splits) -> Splits:
    return splits | {"test": splits["test"][:1]}


@pytest.mark.parametrize("change", [moved, reordered, swapped, shortened])
def test_the_checksum_changes_when_a_row_moves(splits: Splits, change: Callable[[Splits], Splits]) -> None:
    assert make_manifest(change(splits), {}).sha256 != make_manifest(splits, {}).sha256


@pytest.mark.parametrize("change", [{"label": "x"}, {"id": "eleven"}, {"seen": "f"}])
def test_the_checksum_changes_when_a_row_changes(splits: Splits, row: MakeRow, change: dict[str, Any]) -> None:
    changed = splits | {"test": [row(8, **change), row(9)]}
    assert make_manifest(changed, {}).sha256 != make_manifest(splits, {}).sha256


def test_the_checksum_is_of_the_splits_alone(splits: Splits, row: MakeRow) -> None:
    here = splits | {"test": [row(8, seen="f"), row(9)]}
    elsewhere = splits | {"test": [row(8, images=(CheckedImage(Path("/elsewhere.png"), "f"),)), row(9)]}
    assert make_manifest(elsewhere, {"empty answer": ["x"]}).sha256 == make_manifest(here, {}).sha256


def test_rows_read_again_go_back_to_their_splits(splits: Splits) -> None:
    manifest = make_manifest(splits, {})
    assert manifest.rows_of(ReadRows(all_rows(splits)[::-1])) == splits


def test_a_changed_row_is_named(splits: Splits, row: MakeRow) -> None:
    rows = [*all_rows(splits)[:-1], row(9, messages=row(77).messages)]
    assert complaint(make_manifest(splits, {}), rows) == "row '9' has changed"


def test_a_row_that_is_gone_is_named(splits: Splits) -> None:
    assert complaint(make_manifest(splits, {}), all_rows(splits)[1:]) == "row '0' is gone"


def test_a_new_row_is_named(splits: Splits, row: MakeRow) -> None:
    assert complaint(make_manifest(splits, {}), [*all_rows(splits), row(10)]) == "row '10' is new"


def test_what_differs_is_named_with_its_line(splits: Splits, row: MakeRow, tmp_path: Path) -> None:
    file, rows = tmp_path / "rows.jsonl", [row(8), row(10), row(9, messages=row(77).messages)]
    file.write_text("\n{}\n{}\n{}\n")
    places = Places(file, 3, False, {each.id: i for i, each in enumerate(rows)}, {}, {})
    with pytest.raises(FieldError, match=r": row '10' \(line 3\) is new, row '9' \(line 4\) has changed\. Bring"):
        make_manifest({"test": splits["test"]}, {}).rows_of(ReadRows(rows, places=places))
    with pytest.raises(FieldError, match=r"row '9' \(line 4\) has changed, row '0' is gone"):
        make_manifest({"test": [rows[0], rows[1], splits["test"][1], splits["train"][0]]}, {}).rows_of(
            ReadRows(rows, places=places)
        )


def test_of_many_differences_three_are_named_and_the_rest_counted(splits: Splits, row: MakeRow) -> None:
    rows = [row(20), row(21), *all_rows(splits)[3:]]
    expected = "row '20' is new, row '21' is new, row '0' is gone and 2 more"
    assert complaint(make_manifest(splits, {}), rows) == expected


def test_three_differences_are_all_of_them(splits: Splits) -> None:
    expected = "row '0' is gone, row '1' is gone, row '2' is gone"
    assert complaint(make_manifest(splits, {}), all_rows(splits)[3:]) == expected


def test_rows_that_were_left_out_are_not_new(splits: Splits, row: MakeRow) -> None:
    manifest = make_manifest(splits, {"longer than 64 tokens": ["30"], "empty answer": ["31"]})
    found = manifest.rows_of(ReadRows([row(30), row(31), *all_rows(splits)]))
    assert found == splits, "and they stay left out"


@pytest.mark.parametrize(
    ("kind", "tied"),
    [
        ("row", lambda row: (row(1), row(50, id="1"))),
        ("content", lambda row: (row(1), row(1, id="50"))),
        ("group 'g'", lambda row: (row(1, group="g"), row(50, group="g"))),
        ("image", lambda row: (row(1, seen="f"), row(50, seen="f"))),
    ],
)
@pytest.mark.parametrize(
    ("first", "second"), [("train", "validation"), ("train", "test"), ("validation", "test")], ids=str
)
def test_what_two_splits_share_is_named(
    row: MakeRow, kind: str, tied: Callable[[MakeRow], tuple[Row, Row]], first: str, second: str
) -> None:
    splits: Splits = {"train": [row(100)], "validation": [row(101)], "test": [row(102)]}
    one, other = tied(row)
    splits[first].append(one)  # type: ignore[index]
    splits[second].append(other)  # type: ignore[index]
    for check in (check_disjoint, lambda splits: make_manifest(splits, {})):
        with pytest.raises(FieldError) as raised:
            check(splits)
        assert raised.value.key == "data.split"
        words = f"{first} and {second} overlap: rows '1' and {other.id!r} share the same {kind}"
        assert raised.value.message == words


@pytest.mark.parametrize(("suffix", "before"), [("jsonl", ""), ("csv", "q\n")])
def test_an_overlap_is_named_by_lines_with_how_many_there_are(
    tmp_path: Path, row: MakeRow, suffix: str, before: str
) -> None:
    file = tmp_path / f"rows.{suffix}"
    file.write_text(before + "1\n\n" + "1\n" * 5)
    rows = [row(i, group="g" if i != 2 else None, id=f"id{i}") for i in range(6)]
    places = Places(file, 6, True, {each.id: i for i, each in enumerate(rows)}, {}, {})
    splits: Splits = {"train": rows[1:3], "validation": rows[:1], "test": rows[3:]}
    first = len(before) // 2 + 1
    words = f"train and validation overlap: lines {first + 2} and {first} of rows.{suffix} share the same group 'g' "
    with pytest.raises(FieldError) as raised:
        make_manifest(splits, {}, places=places)
    assert raised.value.message == f"{words}(3 more rows overlap)"


def test_what_rows_of_one_split_share_does_not_matter(row: MakeRow) -> None:
    check_disjoint({"train": [row(i, group="g", seen="f") for i in range(3)], "validation": [], "test": []})


def test_a_group_that_has_grown_over_two_splits_is_noticed_on_the_way_back(splits: Splits, row: MakeRow) -> None:
    manifest = make_manifest(splits, {})
    rows = [row(int(old.id), group="g" if old.id in ("0", "9") else None) for old in all_rows(splits)]
    with pytest.raises(FieldError, match="train and test overlap: rows '0' and '9' share the same group 'g'"):
        manifest.rows_of(ReadRows(rows))


def test_a_manifest_that_names_a_row_twice_is_refused_on_the_way_back(splits: Splits) -> None:
    keys = make_manifest(splits, {}).splits
    tampered = Manifest(splits=keys | {"test": [*keys["test"], keys["train"][0]]}, left_out={})
    with pytest.raises(FieldError, match="train and test overlap: rows '0' and '0' share the same row"):
        tampered.rows_of(ReadRows(all_rows(splits)))
