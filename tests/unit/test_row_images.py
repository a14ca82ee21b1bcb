"""Images of rows: found by path or stored in the data, checked once, left out where they can't be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from hpsearch.data import images
from hpsearch.data.rows import ReadRows
from hpsearch.errors import FieldError
from tests.unit.image_fixtures import COLUMNS, embedded, png, rows_with

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]


def test_an_image_is_found_beside_the_file(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    (tmp_path / "data" / "pictures" / "1.png").write_bytes(png(1))
    found = read(write_jsonl("data/rows.jsonl", rows_with("pictures/1.png")), columns=COLUMNS)
    [row] = found.rows
    assert row.images[0].path == tmp_path / "data" / "pictures" / "1.png"
    assert row.images[0].sha256 == hashlib.sha256(png(1)).hexdigest()


def test_an_image_is_found_in_the_folder_that_the_study_names(
    read: Read, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "elsewhere" / "1.png").write_bytes(png(2))
    found = read(write_jsonl("rows.jsonl", rows_with("1.png")), columns=COLUMNS, images="elsewhere")
    assert [row.images[0].path for row in found.rows] == [tmp_path / "elsewhere" / "1.png"]


def test_an_absolute_path_needs_no_folder(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    source = write_jsonl("rows.jsonl", rows_with(str(tmp_path / "1.png")))
    assert len(read(source, columns=COLUMNS, images="/no/such/folder").rows) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(1)[:-30], "image can't be decoded"),
        (png(1)[:10], "image can't be decoded"),
        (b"no image", "image can't be decoded"),
        (b"", "image can't be decoded"),
        (None, "image file is missing"),
    ],
    ids=["cut short", "header only", "text", "empty", "missing"],
)
def test_an_image_file_that_can_not_be_used_leaves_its_rows_out(
    read: Read, write_jsonl: WriteJsonl, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    (tmp_path / "good.png").write_bytes(png(1))
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    source = write_jsonl("rows.jsonl", rows_with("good.png", "bad.png", "good.png", "bad.png"))
    found = read(source, columns=COLUMNS)
    assert found.left_out == {reason: ["1", "3"]}
    assert [row.id for row in found.rows] == ["0", "2"]


@pytest.mark.parametrize(
    ("given", "name", "hint"),
    [
        (
            "pictures",
            "pictures/1.png",
            "{0}/pictures/1.png is there: paths in the data begin at {0}, so write data.images: {0}",
        ),
        (None, "gone.png", "paths in the data begin at {0}; data.images: FOLDER names another one"),
        (None, "x" * 5000, "such as "),
    ],
)
def test_images_of_which_none_is_found_are_in_another_folder(
    given: str | None, name: str, hint: str, read: Read, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(png(1))
    with pytest.raises(FieldError) as raised:
        read(write_jsonl("rows.jsonl", rows_with(name, "other.png")), columns=COLUMNS, images=given)
    assert raised.value.key == "data.images"
    assert raised.value.message.startswith("none of the 2 images is found, such as ")
    assert hint.format(tmp_path) in raised.value.message
    with pytest.raises(FieldError, match="none of the 2 images is found"):
        read(write_jsonl("rows.jsonl", rows_with(name, "other.png", None)), columns=COLUMNS, images=given)


def test_a_truncated_photograph_is_noticed(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    found = read(write_jsonl("rows.jsonl", rows_with("whole.jpg", "half.jpg")), columns=COLUMNS)
    assert found.left_out == {"image can't be decoded": ["1"]}


def test_a_row_with_two_faults_is_counted_once(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    rows = [{"i": "none.png", "q": "Q?", "a": ""}, *rows_with("1.png")]
    found = read(write_jsonl("rows.jsonl", rows), columns=COLUMNS)
    assert found.left_out == {"empty answer": ["0"]}


def test_a_folder_is_no_image(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "1.png").write_bytes(png(1))
    found = read(write_jsonl("rows.jsonl", rows_with("folder.png", "1.png")), columns=COLUMNS)
    assert found.left_out == {"image file is missing": ["0"]}


def test_the_same_words_about_another_image_are_another_row(
    read: Read, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    for name, colour in (("1.png", 1), ("2.png", 2), ("copy-of-1.png", 1)):
        (tmp_path / name).write_bytes(png(colour))
    rows = [{"i": name, "q": "Q?", "a": "a"} for name in ("1.png", "2.png", "copy-of-1.png")]
    found = read(write_jsonl("rows.jsonl", rows), columns=COLUMNS)
    assert [row.id for row in found.rows] == ["0", "1"]
    assert found.left_out == {"duplicate of another row": ["2"]}


def test_a_path_may_be_the_rows_group_too(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    found = read(write_jsonl("rows.jsonl", rows_with("1.png")), columns=COLUMNS | {"group": COLUMNS["image"]})
    assert [(row.group, row.images[0].path) for row in found.rows] == [("1.png", tmp_path / "1.png")]


def test_images_that_are_stored_in_the_data_are_no_group(read: Read, tmp_path: Path) -> None:
    embedded(png(1)).save_to_disk(tmp_path / "saved")
    with pytest.raises(FieldError) as raised:
        read("saved", columns=COLUMNS | {"group": COLUMNS["image"]})
    assert raised.value.key == "data.columns.group"
    assert raised.value.message.startswith(f"column {COLUMNS['image']!r} holds images, not text; rows of one image ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_images_of_the_usual_formats_are_read(kind: str, read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "image", kind)
    assert len(read(write_jsonl("rows.jsonl", rows_with("image")), columns=COLUMNS).rows) == 1


def test_an_image_that_another_program_would_have_to_read_is_left_out(
    read: Read, write_jsonl: WriteJsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow starts Ghostscript for EPS: the author of the data would choose what it runs."""
    Image.new("RGB", (16, 16)).save(tmp_path / "image.eps", "EPS")
    started: list[Any] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments: started.append(arguments))
    rows = rows_with("image.eps", "image.png")
    (tmp_path / "image.png").write_bytes(png(1))
    assert read(write_jsonl("rows.jsonl", rows), columns=COLUMNS).left_out == {"image can't be decoded": ["0"]}
    assert started == []


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the one and refuses the other
def test_a_small_file_of_a_huge_image_is_left_out(
    side: int, read: Read, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    Image.new("1", (side, side)).save(tmp_path / "bomb.png", "PNG")
    (tmp_path / "1.png").write_bytes(png(1))
    found = read(write_jsonl("rows.jsonl", rows_with("bomb.png", "1.png")), columns=COLUMNS)
    assert found.left_out == {"image has more than 89 megapixels": ["0"]}


@pytest.mark.parametrize("name", ["/dev/zero", "a\0b", "x" * 5000, "."])
def test_a_name_that_is_no_file_s_is_a_missing_image(
    name: str, read: Read, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    found = read(write_jsonl("rows.jsonl", rows_with(name, "1.png")), columns=COLUMNS)
    assert found.left_out == {"image file is missing": ["0"]}


URL = "is a URL; download the images first, and name the files"
TEXT = "is an image written as text; save it as a file, and name that"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("https://x.org/1.png", f"'https://x.org/1.png' {URL}"),
        ("HTTP://x.org/1.png", f"'HTTP://x.org/1.png' {URL}"),
        ("s3://b/1.png", f"'s3://b/1.png' {URL}"),
        (f"https://x.org/{'1' * 99}", f"'https://x.org/{'1' * 66}…' {URL}"),
        ("data:image/png;base64,iV", f"'data:image/png;base64,iV' {TEXT}"),
    ],
    ids=["https", "capitals", "bucket", "long", "text"],
)
@pytest.mark.parametrize("is_image", [False, True], ids=["a column of text", "a column of images"])
def test_an_address_in_the_place_of_an_image_is_refused(
    is_image: bool, name: str, problem: str, tmp_path: Path
) -> None:
    """It isn't counted as a file that is missing: there may be as many as rows."""
    (tmp_path / "1.png").write_bytes(png(1))
    values = ["1.png", name]
    table = datasets.Dataset.from_dict({"i": values})
    if is_image:
        inside = {"bytes": png(1), "path": "https://x.org/was-downloaded.png"}
        features = datasets.Features({"i": datasets.Image()})
        table = datasets.Dataset.from_dict({"i": [inside, {"bytes": None, "path": name}]}, features=features)
    with pytest.raises(FieldError) as raised:
        images.RowImages(table, "i", tmp_path, tmp_path / "store", lambda *_: None)
    assert raised.value.key == "data.columns.image"
    assert raised.value.message == f"column 'i' of row 1: {problem}"


def test_a_file_may_be_named_like_an_address_s_end(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    (tmp_path / "https:").mkdir()
    for name in ("https:/1.png", "data:2.png"):
        (tmp_path / name).write_bytes(png(len(name)))
    assert len(read(write_jsonl("rows.jsonl", rows_with("https:/1.png", "data:2.png")), columns=COLUMNS).rows) == 2
