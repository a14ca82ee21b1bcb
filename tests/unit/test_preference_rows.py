"""Rows of preferences: pairs and judged answers, plain or as conversations, and what is wrong with the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.data.prepared import write_rows
from hpsearch.data.rows import ReadRows, Row, read_rows
from hpsearch.data.source import Source
from hpsearch.data.split import split_rows
from hpsearch.results.questions import asked_columns, question_rows
from hpsearch.spec.data import ColumnsSpec, DataSpec, SplitByFraction

PAIR = {"question": "q", "chosen": "c", "rejected": "r"}
ASKED = {"role": "user", "content": "What?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(rows: list[dict[str, Any]], **columns: str) -> ReadRows:
    table = datasets.Dataset.from_list(rows)
    data = DataSpec(source="rows", columns=ColumnsSpec(**columns))
    return read_rows(Source(table, Path(), []), data, Path(), lambda *_: None)


def one(row: dict[str, Any], **columns: str) -> Row:
    found = read([row], **columns)
    assert found.left_out == {}
    return found.rows[0]


@pytest.mark.parametrize(
    "row",
    [
        {"q": "What?", "c": " Yes.", "r": "No. "},
        {"q": "What?", "c": [said("Yes.")], "r": [said("No.")]},
        {"q": [ASKED], "c": [said("Yes.")], "r": [said("No.")]},
        {"q": "What?", "c": said("Yes."), "r": said("No.")},
        {"q": "as it is said below", "c": [ASKED, said("Yes.")], "r": [ASKED, said("No.")]},
    ],
)
def test_a_pair_may_be_texts_or_conversations(row: dict[str, Any]) -> None:
    found = one(row, **PAIR)
    assert (found.messages, found.rejected) == ([ASKED, said("Yes.")], "No.")


def test_the_prompt_may_be_implicit() -> None:
    turns = [{"role": "system", "content": "Be kind."}, ASKED, said("Hm."), ASKED]
    row = {"c": [*turns, said("Yes.")], "r": [*turns, said("No.")]}
    found = one(row, chosen="c", rejected="r")
    assert (found.messages, found.rejected) == ([*turns, said("Yes.")], "No.")


def test_raw_texts_stay_as_they_are() -> None:
    columns = {"prompt": "q", "chosen": "c", "rejected": "r"}
    found = one({"q": "Q:\nA:", "c": " yes", "r": " no"}, **columns)
    assert ColumnsSpec(**columns).row_format == "raw-preference"
    assert (found.messages[0]["content"], found.messages[1]["content"], found.rejected) == ("Q:\nA:", " yes", " no")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"q": "What?", "c": "Yes.", "r": "Yes. "}, "chosen equals rejected"),
        ({"q": "What?", "c": "Yes.", "r": None}, "empty rejected"),
        ({"q": "What?", "c": " ", "r": "No."}, "empty chosen"),
        ({"q": None, "c": "Yes.", "r": "No."}, "empty question"),
        ({"q": "What?", "c": "nan", "r": "No."}, 'chosen is "nan"'),
    ],
)
def test_what_is_no_pair_is_left_out_and_counted(row: dict[str, Any], reason: str) -> None:
    good = {"q": "Why?", "c": "So.", "r": "Not so."}
    found = read([row, good, row], **PAIR)
    assert found.left_out == {reason: ["0", "2"]}
    assert len(found.rows) == 1


def test_conversations_that_part_before_their_end_are_no_pair() -> None:
    row = {"c": [ASKED, said("Hm."), ASKED, said("Yes.")], "r": [ASKED, said("So."), ASKED, said("No.")]}
    found = read([row], chosen="c", rejected="r")
    assert found.left_out == {"chosen and rejected differ before their last message": ["0"]}
    assert read([{"c": [said("Yes.")], "r": [said("No.")]}], chosen="c", rejected="r").left_out == {
        "no question": ["0"]
    }


@pytest.mark.parametrize(("told", "meant"), [(True, True), (0, False), ("True", True), ("0", False), (1.0, True)])
def test_an_answer_is_desirable_or_not(told: Any, meant: bool) -> None:
    found = one({"q": "What?", "a": "Yes.", "d": told}, question="q", answer="a", desirable="d")
    assert (found.messages, found.rejected, found.desirable) == ([ASKED, said("Yes.")], None, meant)


def test_an_answer_of_which_that_is_not_known_is_left_out() -> None:
    rows = [{"q": "What?", "a": "Yes.", "d": "maybe"}, {"q": "What?", "a": "Yes.", "d": None}]
    found = read(rows, question="q", answer="a", desirable="d")
    assert found.left_out == {"desirable is neither true nor false": ["0", "1"]}


def test_what_is_rejected_and_desirable_is_a_row_s_content() -> None:
    pairs = [one({"q": "What?", "c": "Yes.", "r": other}, **PAIR).sha256 for other in ("No.", "Not.")]
    judged = [
        one({"q": "What?", "a": "Yes.", "d": good}, question="q", answer="a", desirable="d").sha256
        for good in (True, False)
    ]
    plain = one({"q": "What?", "a": "Yes."}, question="q", answer="a").sha256
    assert len({*pairs, *judged, plain}) == 5


def test_answers_to_one_question_are_in_one_split() -> None:
    rows = [{"q": f"What is {number // 4}?", "c": f"It is {number}.", "r": "No."} for number in range(80)]
    splits = split_rows(read(rows, **PAIR), SplitByFraction())
    where: dict[str, set[str]] = {}
    for name, there in splits.items():
        assert there
        for row in there:
            where.setdefault(row.messages[0]["content"], set()).add(name)
    assert all(len(names) == 1 for names in where.values())


def test_the_question_may_stand_in_several_columns() -> None:
    columns = ColumnsSpec(chosen="c", rejected="r")
    data = DataSpec(source="rows", columns=columns, prompt="{q}[ ({hint})]")
    rows = [{"q": "What?", "hint": hint, "c": "Yes.", "r": "No."} for hint in ("short", "")]
    found = read_rows(Source(datasets.Dataset.from_list(rows), Path(), []), data, Path(), lambda *_: None)
    assert [row.messages[0]["content"] for row in found.rows] == ["What? (short)", "What?"]


@pytest.mark.parametrize(
    ("columns", "values", "asked"),
    [
        (PAIR, {"q": "What?"}, ["What?"]),
        (PAIR, {"q": [ASKED, said("Hm."), ASKED]}, ["What?", "Hm.", "What?"]),
        ({"chosen": "c", "rejected": "r"}, {"c": [ASKED]}, ["What?"]),
        ({"chosen": "c", "rejected": "r"}, {"c": [ASKED, said("Yes.")]}, ["What?"]),
        ({"answer": "a", "desirable": "d"}, {"a": [ASKED]}, ["What?"]),
    ],
)
def test_a_row_may_ask_without_its_answers(columns: dict[str, str], values: dict[str, Any], asked: list[str]) -> None:
    data = DataSpec(source="rows", columns=ColumnsSpec(**columns))
    assert list(values) == list(asked_columns(data, needs_image=False))
    found = question_rows({1: values}, data, Path(), Path(), lambda *_: None, "none")[1]
    assert isinstance(found, Row)
    assert [message["content"] for message in found.messages[:-1]] == asked


def test_only_rows_of_preferences_have_their_columns(tmp_path: Path) -> None:
    write_rows([one({"q": "What?", "c": "Yes.", "r": "No."}, **PAIR)], tmp_path / "pairs")
    write_rows([one({"q": "What?", "a": "Yes."}, question="q", answer="a")], tmp_path / "plain")
    write_rows([one({"q": "What?", "a": "Y", "d": 0}, question="q", answer="a", desirable="d")], tmp_path / "judged")
    columns = {place.name: datasets.load_from_disk(str(place)).column_names for place in tmp_path.iterdir()}
    assert columns["plain"] == ["id", "messages", "label"]
    assert columns["pairs"] == [*columns["plain"], "rejected"]
    assert columns["judged"] == [*columns["plain"], "desirable"]
