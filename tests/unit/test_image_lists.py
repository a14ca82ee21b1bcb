"""Rows with several images and with none: lists in a column, and where in the text each image stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.data.image_lists import images_mistake
from hpsearch.data.manifest import check_disjoint, make_manifest
from hpsearch.data.prepared import DataFolder, images_of, read_data, write_rows
from hpsearch.data.rows import ReadRows, Row
from hpsearch.data.split import leakage_groups
from hpsearch.errors import FieldError
from hpsearch.jobs import AnsweredRow
from hpsearch.results.merge import _with_images_first
from hpsearch.spec.data import DataSpec
from tests.unit.image_fixtures import png

Read = Callable[..., ReadRows]
MakeRow = Callable[..., Row]
WriteJsonl = Callable[[str, list[Any]], str]
COLUMNS = {"image": "i", "question": "q", "answer": "a"}
CHAT = {"image": "i", "messages": "m"}
PICTURE, ANSWER = {"type": "image"}, {"role": "assistant", "content": "a"}


@pytest.fixture(autouse=True)
def drawn(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))


def rows_with(*images: Any, question: str = "Q") -> list[dict[str, Any]]:
    return [{"i": image, "q": f"{question}{i}?", "a": "a"} for i, image in enumerate(images)]


def names(found: ReadRows) -> list[list[str]]:
    return [[image.path.name for image in row.images] for row in found.rows]


def test_a_list_gives_a_row_its_images_in_order(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", rows_with(["1.png", "0.png"], [], ["2.png"], None)), columns=COLUMNS)
    assert names(found) == [["1.png", "0.png"], [], ["2.png"], []]
    assert found.left_out == {}


def test_a_name_in_one_row_and_a_list_in_another(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", rows_with("0.png", ["1.png", "2.png"], None, ["1.png", 3])), columns=COLUMNS)
    assert names(found) == [["0.png"], ["1.png", "2.png"], []]
    assert found.left_out == {"no image": ["3"]}


def test_a_column_of_something_else_is_no_column_of_rows_without_images(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", rows_with({"url": "0.png"}, {"url": "1.png"})), columns=COLUMNS)
    assert found.left_out == {"image is neither a path nor a picture, but has: url": ["0", "1"]}


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_row_without_an_image_is_text(read: Read, write_jsonl: WriteJsonl, nothing: str | None) -> None:
    assert names(read(write_jsonl("rows.jsonl", rows_with("1.png", nothing)), columns=COLUMNS)) == [["1.png"], []]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (["0.png", "gone.png"], "image file is missing"),
        (["rows.jsonl", "0.png"], "image can't be decoded"),
        (["0.png", None], "no image"),
    ],
)
def test_one_bad_image_leaves_its_row_out(read: Read, write_jsonl: WriteJsonl, images: list[Any], reason: str) -> None:
    found = read(write_jsonl("rows.jsonl", rows_with(["1.png"], images)), columns=COLUMNS)
    assert (names(found), found.left_out) == ([["1.png"]], {reason: ["1"]})


def test_an_address_in_a_list_is_reported_with_its_row(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", rows_with(["0.png", "1.png"], [], ["2.png", "https://a.b/c.png"]))
    with pytest.raises(FieldError, match=r"column 'i' of row 2: 'https://a\.b/c\.png' is a URL"):
        read(source, columns=COLUMNS)


@pytest.mark.parametrize("source", ["saved", "rows.parquet"])
def test_lists_of_images_in_the_data_are_stored(read: Read, tmp_path: Path, source: str) -> None:
    pictures = [[png(1), png(2)], None, [png(1)], []]
    features = datasets.Features(
        {"i": datasets.Sequence(datasets.Image()), "q": datasets.Value("string"), "a": datasets.Value("string")}
    )
    values = [row and [{"bytes": image, "path": None} for image in row] for row in pictures]
    columns = {"i": values, "q": [f"Q{i}?" for i in range(4)], "a": ["a"] * 4}
    table = datasets.Dataset.from_dict(columns, features=features)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "rows.parquet")
    found = read(source, columns=COLUMNS)
    assert [[image.path.read_bytes() for image in row.images] for row in found.rows] == [row or [] for row in pictures]
    assert len(list((tmp_path / "storage" / "data" / "images").glob("*/*"))) == 2


def test_a_classifier_takes_one_image_a_row(tmp_path: Path, own_cache: Path, write_jsonl: WriteJsonl) -> None:  # noqa: ARG001
    rows = [{"i": images, "l": "cat"} for images in (["0.png"], ["0.png", "1.png"], [])]
    data = DataSpec.model_validate({"source": write_jsonl("rows.jsonl", rows), "columns": {"image": "i", "label": "l"}})
    found, _ = read_data(data, tmp_path, DataFolder(tmp_path / "storage"), lambda *_: None, "one")
    assert (names(found), found.left_out) == ([["0.png"]], {"several images": ["1"], "no image": ["2"]})


def test_lists_of_images_name_no_group(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", rows_with(["0.png"], ["1.png"]))
    with pytest.raises(FieldError, match="holds images, not text"):
        read(source, columns=COLUMNS | {"group": "i"})


@pytest.mark.parametrize(
    ("images", "question", "reason"),
    [
        ([], "What is <image>?", "image placeholder without an image"),
        (["0.png"], "<image> or <image>?", "more image placeholders than images"),
        (["0.png", "1.png"], "<image> or what?", "more images than placeholders"),
    ],
)
def test_places_and_images_must_match(
    read: Read, write_jsonl: WriteJsonl, images: list[str], question: str, reason: str
) -> None:
    good = {"i": ["0.png", "1.png"], "q": "<image> before <image>?", "a": "a"}
    found = read(write_jsonl("rows.jsonl", [good, {"i": images, "q": question, "a": "a"}]), columns=COLUMNS)
    assert found.left_out == {reason: ["1"]}
    assert [row.messages[0]["content"] for row in found.rows] == [good["q"]]


def test_without_an_image_column_a_placeholder_is_a_word(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(
        write_jsonl("rows.jsonl", [{"q": "What does <image> mean?", "a": "a"}]),
        columns={"question": "q", "answer": "a"},
    )
    assert len(found.rows) == 1


def test_parts_of_a_message_say_where_images_stand(read: Read, write_jsonl: WriteJsonl) -> None:
    first = [{"type": "text", "text": "From "}, PICTURE, {"type": "text", "text": " to"}, PICTURE]
    turns = [{"role": "user", "content": first}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]
    later = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "user", "content": [PICTURE]}]
    later = [later[0], turns[1], later[1], turns[1]]
    rows = [{"i": ["0.png", "1.png"], "m": turns}, {"i": ["2.png"], "m": later}]
    found = read(write_jsonl("rows.jsonl", rows), columns=CHAT)
    assert found.rows[0].messages == [{"role": "user", "content": "From <image> to<image>"}, ANSWER]
    assert [message["content"] for message in found.rows[1].messages] == ["hi", "a", "<image>", "a"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "assistant", "content": [PICTURE]}, "an image in a message from assistant"),
        ({"role": "user", "content": [{"type": "video"}]}, "a message without role and text content"),
        ({"role": "user", "content": []}, "a message without role and text content"),
        ({"role": "user", "content": [PICTURE, PICTURE]}, "more image placeholders than images"),
    ],
)
def test_parts_that_can_not_be_read_leave_their_row_out(
    read: Read, write_jsonl: WriteJsonl, message: dict[str, Any], reason: str
) -> None:
    text = [{"type": "text", "text": "a"}]
    rows = [{"i": ["0.png"], "m": [message, {"role": "assistant", "content": text}]}]
    assert read(write_jsonl("rows.jsonl", rows), columns=CHAT).left_out == {reason: ["0"]}


def test_images_belong_to_what_a_user_says() -> None:
    assert images_mistake([ANSWER], 1, "several") == "images, and no message of a user that they belong to"
    assert images_mistake([ANSWER], 0, "several") is None


def test_the_order_of_images_is_content(row: MakeRow) -> None:
    sums = {row(0, seen=seen).sha256 for seen in (None, "f", ["f", "f"], ["f", "g"], ["g", "f"])}
    assert len(sums) == 5


def test_rows_that_share_any_image_hang_together(row: MakeRow) -> None:
    rows = [row(0, seen=["a", "b"]), row(1, seen="b"), row(2, seen=["c", "a"]), row(3, seen="d"), row(4)]
    numbers = leakage_groups(rows)
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers)) == 3
    with pytest.raises(FieldError, match="rows '0' and '2' share the same image"):
        check_disjoint({"train": rows[:2], "validation": rows[2:], "test": []})


def test_a_manifest_counts_rows_by_their_images(row: MakeRow) -> None:
    splits = {
        "train": [row(0), row(1, seen="a"), row(2, seen="b")],
        "validation": [row(3, seen=["c", "d"])],
        "test": [],
    }
    assert make_manifest(splits, {}).num_images == {"train": {0: 1, 1: 2}, "validation": {2: 1}, "test": {}}  # type: ignore[arg-type]


def test_prepared_rows_name_their_images(row: MakeRow, tmp_path: Path) -> None:
    rows = [row(0), row(1, seen="a"), row(2, seen=["b", "c"])]
    write_rows(rows, tmp_path / "rows")
    written = datasets.load_from_disk(str(tmp_path / "rows"))
    assert [tuple(images_of(one)) for one in written] == [one.images for one in rows]


def test_a_merged_model_is_checked_on_rows_with_images_first(row: MakeRow, tmp_path: Path) -> None:
    write_rows([row(0), row(1, seen="a"), row(2), row(3, seen=["b", "c"])], tmp_path / "rows")
    assert _with_images_first(datasets.load_from_disk(str(tmp_path / "rows"))) == [1, 3, 0, 2]


@pytest.mark.parametrize(("image", "images"), [("a.png", ["a.png"]), (None, [])])
def test_answers_of_an_earlier_version_name_one_image_at_most(image: str | None, images: list[str]) -> None:
    row = AnsweredRow(id="0", question="?", reference="a", prediction="a", loss=0.5, num_tokens=1, is_cut=False)
    before = row.model_dump(exclude={"images"}) | {"image": image}
    assert AnsweredRow.model_validate(before) == row.model_copy(update={"images": images})


def test_folders_of_an_earlier_version_have_one_image_a_row(tmp_path: Path) -> None:
    before = {"id": ["0"], "image": [str(tmp_path / "1.png")], "image_sha256": [None]}
    [row] = datasets.Dataset.from_dict(before)
    [image] = images_of(row)
    assert image.path == tmp_path / "1.png"
    assert len(image.sha256) == 64
    assert images_of({"id": "0"}) == []
