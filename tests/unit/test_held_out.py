"""A held-out set that studies share: written once, found again row by row, and tied to no training row of any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data import divide as divide_module
from hpsearch.data.divide import divide, keep_held_out
from hpsearch.data.held_out import take_held_out, write_held_out
from hpsearch.data.manifest import make_manifest
from hpsearch.data.rows import LeftOut, ReadRows, Row
from hpsearch.data.split import Splits
from hpsearch.errors import FieldError
from hpsearch.spec.curriculum import CurriculumSpec
from hpsearch.spec.data import DataSpec

MakeRow = Callable[..., Row]
FILE = "shared.held_out.json"
SPLIT = {"train": 0.7, "validation": 0.15, "test": 0.15}


def data_of(**more: Any) -> DataSpec:
    columns = {"question": "q", "answer": "a", "label": "kind"}
    return DataSpec.model_validate(
        {"source": "rows.jsonl", "columns": columns, "split": SPLIT, "held_out": FILE, **more}
    )


def study(rows: list[Row], folder: Path, **more: Any) -> tuple[Splits, LeftOut]:
    """What opening a study does with its rows."""
    data = data_of(**more)
    splits, left_out = divide(ReadRows(rows), data, CurriculumSpec(), folder)
    keep_held_out(make_manifest(splits, left_out), data, folder)
    return splits, left_out


def refusal(rows: list[Row], folder: Path, **more: Any) -> str:
    with pytest.raises(FieldError) as raised:
        study(rows, folder, **more)
    assert raised.value.key == "data.held_out"
    return raised.value.message


def faces(row: MakeRow) -> list[Row]:
    """100 rows of two labels, 3 to 1, two of each person."""
    return [row(i, label="alex" if i % 4 else "ryan", group=f"person {i // 2}") for i in range(100)]


def checksums(rows: list[Row]) -> set[str]:
    return {row.sha256 for row in rows}


def test_the_first_study_writes_it_once(row: MakeRow, tmp_path: Path) -> None:
    splits, _ = study(faces(row), tmp_path)
    written = (tmp_path / FILE).read_bytes()
    assert json.loads(written)["rows"] == [[row.id, row.sha256] for row in splits["test"]]
    study(faces(row), tmp_path, split=SPLIT | {"seed": 5})
    assert (tmp_path / FILE).read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == [FILE], "no draft is left"


def test_the_study_that_wrote_it_splits_the_same_when_it_finds_it(row: MakeRow, tmp_path: Path) -> None:
    first, _ = study(faces(row), tmp_path)
    again, left_out = study(faces(row), tmp_path)
    assert make_manifest(again, {}).sha256 == make_manifest(first, {}).sha256
    assert again == first
    assert left_out == {}


def test_other_studies_take_the_same_rows(row: MakeRow, tmp_path: Path) -> None:
    first, _ = study(faces(row), tmp_path)
    other = [*faces(row)[::-1], *(row(i, label="alex") for i in range(200, 230))]
    second, _ = study(other, tmp_path, split={"train": 0.5, "validation": 0.3, "test": 0.2, "seed": 9})
    assert second["test"] == first["test"]
    assert len(second["train"]) + len(second["validation"]) == 130 - len(first["test"])


def test_two_studies_that_differ_in_balance_train_on_no_held_out_row(row: MakeRow, tmp_path: Path) -> None:
    balanced, _ = study(faces(row), tmp_path, balance="smallest")
    natural, _ = study(faces(row), tmp_path)
    assert len(balanced["train"]) < len(natural["train"])
    assert checksums(balanced["test"]) == checksums(natural["test"])
    for splits in (balanced, natural):
        for name in ("train", "validation"):
            assert not checksums(splits[name]) & checksums(balanced["test"])
            assert not {row.group for row in splits[name]} & {row.group for row in balanced["test"]}
        make_manifest(splits, {})


@pytest.mark.parametrize("tie", ["group", "images", "messages"])
def test_what_is_tied_to_a_held_out_row_is_left_out(row: MakeRow, tmp_path: Path, tie: str) -> None:
    """Rows that the first study did not have may belong to its held-out rows."""
    rows = [row(i, group=f"g{i}", seen=f"{i:x}", label="alex") for i in range(40)]
    first, _ = study(rows, tmp_path)
    held = first["test"][0]
    # words are tied only together with their image: "what is this?" is asked of every one
    ties = {tie: getattr(held, tie)} | ({"images": held.images} if tie == "messages" else {})
    fields = {"group": "new", "images": row(0, seen="new").images, "label": "ryan", **ties}
    second, left_out = study([*rows, row(50, **fields)], tmp_path)
    assert left_out == {"shares its group, image or words with a held-out row": ["50"]}
    assert "50" not in [row.id for part in second.values() for row in part]


def test_rows_of_the_same_words_are_tied_without_an_image(row: MakeRow, tmp_path: Path) -> None:
    rows = [row(i, label="alex") for i in range(40)]
    first, _ = study(rows, tmp_path)
    twin = row(50, messages=first["test"][0].messages, label="ryan")
    _, left_out = study([*rows, twin], tmp_path)
    assert left_out == {"shares its group, image or words with a held-out row": ["50"]}


def test_a_held_out_row_that_is_gone_changed_or_unusable_is_named(row: MakeRow, tmp_path: Path) -> None:
    first, _ = study(faces(row), tmp_path)
    held = first["test"][3]
    others = [row for row in faces(row) if row.id != held.id]
    file = tmp_path / FILE
    assert refusal(others, tmp_path) == f"row {held.id!r} of {file} is gone from this data"
    changed = row(int(held.id), label="emu", group=held.group)
    assert refusal([*others, changed], tmp_path) == f"row {held.id!r} of {file} has changed in this data"
    read = ReadRows(others, {"longer than 8 tokens": [held.id]})
    with pytest.raises(FieldError, match=r"is left out of this data \(longer than 8 tokens\)"):
        take_held_out(file, read)


def test_an_edited_file_is_refused(row: MakeRow, tmp_path: Path) -> None:
    study(faces(row), tmp_path)
    file = tmp_path / FILE
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"rows": content["rows"][1:]}))
    assert refusal(faces(row), tmp_path) == f"{file} does not match its checksum: it was edited after it was written"


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', '{"rows": []}', "\udcff"])
def test_a_file_that_is_no_held_out_set_is_refused(row: MakeRow, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    assert refusal(faces(row), tmp_path).startswith(f"{tmp_path / FILE} is no held-out set (")


def test_a_folder_in_its_place_is_refused(row: MakeRow, tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert "is no held-out set (IsADirectoryError" in refusal(faces(row), tmp_path)


def test_it_may_lie_in_a_folder_that_is_not_there_yet(row: MakeRow, tmp_path: Path) -> None:
    splits, _ = study(faces(row), tmp_path, held_out="sets/shared.json")
    read = ReadRows(faces(row))
    assert take_held_out(tmp_path / "sets" / "shared.json", read)[0] == splits["test"]


def no_links(*_: Any) -> None:
    raise PermissionError("Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_studies_that_draw_it_at_the_same_moment_one_is_refused(
    row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    rows, split_two = faces(row), divide_module.split_two

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        if not has_links:
            monkeypatch.setattr(Path, "hardlink_to", no_links)
        study(rows, tmp_path, split=SPLIT | {"seed": 1})
        return split_two(*arguments)

    monkeypatch.setattr(divide_module, "split_two", meanwhile)
    assert "was written by another study meanwhile; start again" in refusal(rows, tmp_path)
    study(rows, tmp_path)


def test_of_two_studies_that_draw_the_same_rows_at_the_same_moment_none_is_refused(
    row: MakeRow, tmp_path: Path
) -> None:
    keys = [(row.id, row.sha256) for row in faces(row)[:5]]
    write_held_out(tmp_path / FILE, keys)
    written = (tmp_path / FILE).read_bytes()
    write_held_out(tmp_path / FILE, keys)
    assert (tmp_path / FILE).read_bytes() == written


def test_a_file_system_without_links_will_do(row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    splits, _ = study(faces(row), tmp_path)
    assert study(faces(row), tmp_path)[0] == splits


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_rows_are_reported(row: MakeRow, tmp_path: Path, count: int) -> None:
    with pytest.raises(FieldError) as raised:
        study([row(i, label="alex") for i in range(count)], tmp_path)
    assert raised.value.key == "data.split"
