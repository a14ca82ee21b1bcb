"""Rows: what is read out of a table, what is left out and under which name. Images: test_row_images.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hpsearch.data.images import CheckedImage
from hpsearch.data.prepared import DataFolder, read_data
from hpsearch.data.rows import ReadRows, Row
from hpsearch.errors import FieldError
from hpsearch.spec.data import DataSpec

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]
QA = {"question": "q", "answer": "a"}
RAW = {"prompt": "q", "completion": "a"}
CHAT = {"messages": "m"}


def answers(read: ReadRows) -> list[str]:
    return [row.messages[-1]["content"] for row in read.rows]


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def refusal(read: Callable[[], ReadRows]) -> tuple[str, str]:
    with pytest.raises(FieldError) as raised:
        read()
    return raised.value.key, raised.value.message


def test_question_and_answer_become_messages_without_outer_blanks(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", [{"q": " Why?\n", "a": "\tBecause. "}]), columns=QA)
    assert [row.messages for row in found.rows] == [turns(("user", "Why?"), ("assistant", "Because."))]
    assert found.left_out == {}


def test_prompt_and_completion_keep_their_white_space(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", [{"q": "def f():\n", "a": "    return 1\n"}]), columns=RAW)
    assert [row.messages for row in found.rows] == [turns(("user", "def f():\n"), ("assistant", "    return 1\n"))]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty {}"),
        ("", "empty {}"),
        (" \n\t", "empty {}"),
        (float("nan"), "empty {}"),
        ("nan", '{} is "nan"'),
        (" NaN ", '{} is "nan"'),
    ],
)
@pytest.mark.parametrize(
    ("columns", "column", "role"),
    [(QA, "q", "question"), (QA, "a", "answer"), (RAW, "q", "prompt"), (RAW, "a", "completion")],
)
def test_an_empty_text_leaves_its_row_out(
    read: Read, write_jsonl: WriteJsonl, columns: dict[str, str], column: str, role: str, value: Any, reason: str
) -> None:
    bad = {"q": "Why?", "a": "Because.", column: value}
    source = write_jsonl("rows.jsonl", [{"q": "A?", "a": "B"}, bad, {"q": "C?", "a": "D"}])
    found = read(source, columns=columns)
    assert found.left_out == {reason.format(role): ["1"]}
    assert [row.id for row in found.rows] == ["0", "2"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_missing_values_are_left_out_of_tables_too(read: Read, tmp_path: Path, suffix: str) -> None:
    import pandas

    rows = [("A?", "x"), ("B?", ""), ("C?", "nan"), ("D?", "NA"), ("E?", None)]
    table = pandas.DataFrame(rows, columns=["q", "a"])
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    found = read(f"rows.{suffix}", columns=QA)
    assert answers(found) == ["x", "NA"]
    assert found.left_out == {"empty answer": ["1", "4"], 'answer is "nan"': ["2"]}


def test_not_a_number_is_no_text(read: Read, tmp_path: Path) -> None:
    nan = float("nan")
    columns = {"q": ["A?", "B?", "C?"], "a": [1.5, nan, 2.0], "g": [nan, 1.0, 2.0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    found = read("rows.parquet", columns=QA | {"group": "g", "label": "g"})
    assert found.left_out == {"empty answer": ["1"]}
    assert [(row.group, row.label) for row in found.rows] == [(None, None), ("2.0", "2.0")]


def test_a_word_with_nan_in_it_is_an_answer(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", [{"q": "Q?", "a": "nan bread"}, {"q": "R?", "a": "None"}]), columns=QA)
    assert answers(found) == ["nan bread", "None"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([3, 4], ["3", "4"]),
        ([2.5, 0.0], ["2.5", "0.0"]),
        ([0, "none"], ["0", "none"]),
        ([True, False], ["True", "False"]),
    ],
)
def test_numbers_are_answers(read: Read, write_jsonl: WriteJsonl, values: list[Any], texts: list[str]) -> None:
    rows = [{"q": f"Q{i}?", "a": value} for i, value in enumerate(values)]
    assert answers(read(write_jsonl("rows.jsonl", rows), columns=QA)) == texts


def test_whole_numbers_stay_whole_beside_a_missing_one(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [{"q": f"Q{i}?", "a": value} for i, value in enumerate([3, None, 4])]
    assert answers(read(write_jsonl("rows.jsonl", rows), columns=QA)) == ["3", "4"]


def test_a_conversation_is_kept_turn_by_turn(read: Read, write_jsonl: WriteJsonl) -> None:
    chat = turns(("system", "Be brief."), ("user", " Hi "), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "."))
    named = [turn | {"name": "Ann"} for turn in chat]
    found = read(write_jsonl("rows.jsonl", [{"m": named}]), columns=CHAT)
    assert [row.messages for row in found.rows] == [chat]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "empty messages"),
        ([], "empty messages"),
        (turns(("user", "Hi")), "last message is not the assistant's"),
        (turns(("user", " "), ("assistant", "Hello")), "empty message from user"),
        (turns(("user", "Hi"), ("assistant", "")), "empty message from assistant"),
        ([{"role": "user", "content": None}], "a message without role and text content"),
        ([{"role": "user", "text": "Hi"}], "a message without role and text content"),
    ],
)
def test_a_broken_conversation_leaves_its_row_out(
    read: Read, write_jsonl: WriteJsonl, messages: Any, reason: str
) -> None:
    good = turns(("user", "Hi"), ("assistant", "Hello"))
    found = read(write_jsonl("rows.jsonl", [{"m": good}, {"m": messages}]), columns=CHAT)
    assert found.left_out == {reason: ["1"]}
    assert [row.messages for row in found.rows] == [good]


@pytest.mark.parametrize(
    "messages", [[{"content": "Hi"}], ["Hi"], [{"role": "assistant", "content": [{"type": "audio", "text": "Hi"}]}]]
)
def test_messages_of_another_shape_are_left_out(read: Read, write_jsonl: WriteJsonl, messages: list[Any]) -> None:
    found = read(write_jsonl("rows.jsonl", [{"m": messages}]), columns=CHAT)
    assert found.left_out == {"a message without role and text content": ["0"]}


def test_duplicates_are_left_out_and_named_the_first_one_stays(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [
        {"name": "first", "q": "Q?", "a": "A"},
        {"name": "second", "q": "Q?", "a": "B"},
        {"name": "third", "q": " Q?", "a": "A "},
        {"name": "fourth", "q": "Q?", "a": "A"},
    ]
    found = read(write_jsonl("rows.jsonl", rows), columns=QA | {"id": "name"})
    assert [row.id for row in found.rows] == ["first", "second"]
    assert found.left_out == {"duplicate of another row": ["third", "fourth"]}


@pytest.mark.parametrize(
    ("name", "content", "empty", "twice"),
    [
        ("rows.jsonl", '{"q":"A","a":""}\n\n{"q":"B","a":"b"}\n{"q":"B","a":"b"}\n', "line 1", "line 4 repeats line 3"),
        ("rows.csv", 'q,a\n"A\n?",\n\nB,b\nB,b\n', "line 2", "line 6 repeats line 5"),
        (
            "rows.json",
            '[{"q":"A","a":""},{"q":"B","a":"b"},{"q":"B","a":"b"}]',
            "row 0, counted from 0",
            "row 2 repeats row 1, counted from 0",
        ),
    ],
)
def test_rows_that_are_left_out_are_found_in_their_file(
    read: Read, tmp_path: Path, name: str, content: str, empty: str, twice: str
) -> None:
    (tmp_path / name).write_text(content)
    found = read(name, columns=QA)
    found = found.without({"1": "too long"})
    assert found.places is not None
    places = found.places.describe(found.left_out)
    assert places["empty answer"] == f"{name}: {empty}"
    assert places["duplicate of another row"] == f"{name}: {twice}"
    assert places["too long"].startswith(f"{name}: {'line' if 'line' in empty else 'row 1'}")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"q": {"text": "Q?"}, "a": "A"},
            "column 'q' holds several values (text), not text; data.prompt can ask ",
        ),
        ({"q": ["Q", "R"], "a": "A"}, "column 'q' holds lists or images, not text; data.prompt can ask over it"),
        ({"q": "Q", "a": ["A"]}, "column 'a' holds lists or images, not text"),
    ],
)
def test_lists_and_mappings_are_no_texts(read: Read, write_jsonl: WriteJsonl, row: dict[str, Any], words: str) -> None:
    key, message = refusal(lambda: read(write_jsonl("rows.jsonl", [row]), columns=QA))
    assert key == f"data.columns.{'question' if chr(39) + 'q' in words else 'answer'}"
    assert message.startswith(words)
    assert ("data.prompt" in message) is (key == "data.columns.question"), "a prompt asks, and answers nothing"


def test_of_many_rows_that_are_left_out_the_first_are_named(read: Read, tmp_path: Path) -> None:
    rows = [{"q": "A", "a": "", "n": f"row-{number}"} for number in range(7)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = read("rows.parquet", columns=QA | {"id": "n"})
    assert found.places is not None
    names = "row-0, row-1, row-2, row-3, row-4 …"
    assert found.places.describe(found.left_out) == {"empty answer": f"rows.parquet: rows {names}"}


def test_a_row_without_id_is_named_by_its_position_in_the_source(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [{"q": "A?", "a": ""}, {"q": "B?", "a": "b"}, {"q": "B?", "a": "b"}, {"q": "C?", "a": "c"}]
    found = read(write_jsonl("rows.jsonl", rows), columns=QA)
    assert [row.id for row in found.rows] == ["1", "3"]
    assert found.left_out == {"empty answer": ["0"], "duplicate of another row": ["2"]}


def test_numbers_are_ids(read: Read, write_jsonl: WriteJsonl) -> None:
    found = read(write_jsonl("rows.jsonl", [{"n": 7, "q": "A?", "a": "a"}]), columns=QA | {"id": "n"})
    assert [row.id for row in found.rows] == ["7"]


def test_an_id_of_two_rows_names_neither(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [{"n": name, "q": f"Q{i}?", "a": "a"} for i, name in enumerate(["x", "y", "y", "z"])]
    source = write_jsonl("rows.jsonl", rows)
    key, message = refusal(lambda: read(source, columns=QA | {"id": "n"}))
    assert (key, message) == ("data.columns.id", "'n' does not name rows: 'y' occurs 2 times")


@pytest.mark.parametrize("role", ["question", "answer", "image", "group", "label", "id"])
def test_a_missing_column_is_reported_with_those_that_exist(read: Read, write_jsonl: WriteJsonl, role: str) -> None:
    source = write_jsonl("rows.jsonl", [{"q": "A?", "a": "a", "note": 1}])
    key, message = refusal(lambda: read(source, columns=QA | {role: "nothing"}))
    assert (key, message) == (f"data.columns.{role}", "the data has no column 'nothing'; it has: q, a, note")


def test_a_missing_split_column_is_reported_as_such(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", [{"q": "A?", "a": "a"}])
    key, message = refusal(lambda: read(source, columns=QA, split={"column": "part"}))
    assert (key, message) == ("data.split.column", "the data has no column 'part'; it has: q, a")


def test_group_label_and_split_are_kept_as_text(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [{"q": "A?", "a": "a", "g": 7, "s": "train"}, {"q": "B?", "a": "b", "g": None, "s": "test"}]
    source = write_jsonl("rows.jsonl", rows)
    found = read(source, columns=QA | {"group": "g", "label": "a"}, split={"column": "s"})
    assert [(row.group, row.label, row.split) for row in found.rows] == [("7", "a", "train"), (None, "b", "test")]
    plain = read(source, columns=QA)
    assert {(row.group, row.label, row.split) for row in plain.rows} == {(None, None, None)}


@pytest.mark.parametrize(
    "change", [{"messages": turns(("user", "q0?"), ("assistant", "b"))}, {"seen": "f"}, {"label": "x"}]
)
def test_the_checksum_is_of_the_content(row: Callable[..., Row], change: dict[str, Any]) -> None:
    assert row(0, **change).sha256 != row(0).sha256


def test_the_checksum_does_not_depend_on_where_a_row_lies(row: Callable[..., Row]) -> None:
    elsewhere = (CheckedImage(Path("/elsewhere.png"), "f"),)
    assert row(0, id="other", images=elsewhere, group="g", split="test").sha256 == row(0, seen="f").sha256


def test_the_checksum_never_changes_or_every_stored_manifest_is_void(row: Callable[..., Row]) -> None:
    assert row(0).sha256 == "ada590f33b7ac8ae26593d505721a1aef330b02c5f280021aabbac4ced5af229"
    assert row(0, seen="f").sha256 == "b8cabffb89c72752f6389152f1d817c5df6d89b26a1438885c6b7fd845f33ea0"


@pytest.mark.usefixtures("own_cache")
def test_progress_is_reported_while_rows_are_read(write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    source = write_jsonl("rows.jsonl", [{"q": f"Q{i}?", "a": "a"} for i in range(2500)])
    data = DataSpec.model_validate({"source": source, "columns": QA})
    read_data(data, tmp_path, DataFolder(tmp_path / "storage"), lambda *words: told.append(words))
    assert told == [("reading rows", 0, 2500), ("reading rows", 1000, 2500), ("reading rows", 2000, 2500)]


def test_reading_leaves_the_source_as_it_was(read: Read, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    rows = [{"q": "A?", "a": ""}, {"q": "B?", "a": " b "}]
    read(write_jsonl("rows.jsonl", rows), columns=QA)
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
