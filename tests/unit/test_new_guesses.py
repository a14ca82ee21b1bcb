"""`hpsearch new` guesses the roles of columns whose names say nothing from what they hold, where one choice is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpsearch.errors import InputError
from hpsearch.propose.columns import Look, look_at, with_roles
from hpsearch.propose.questions import Given, ask_for_rows, ask_for_study
from hpsearch.propose.study import Answers, unused_columns

Value = Callable[[int], Any]
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
GUESSES: dict[str, tuple[dict[str, Value], dict[str, str]]] = {
    "a question and its answer": (
        {"col1": lambda n: f"Is it {n}?", "col2": lambda n: f"it is {n}"},
        {"question": "col1", "answer": "col2"},
    ),
    "of another script": (
        {"col1": lambda n: f"{n}؟", "col2": lambda n: f"it is {n}"},
        {"question": "col1", "answer": "col2"},
    ),
    "beside groups, splits and ids": (
        {
            "col1": lambda n: f"Is it {n}?",
            "col2": lambda n: f"it is {n}",
            "fall": lambda n: f"p{n // 2}",
            "split": lambda n: "test" if n % 9 == 0 else "train",
            "id": str,
        },
        {"question": "col1", "answer": "col2"},
    ),
    "the class of an image": (
        {"bild": lambda n: f"{n}.png", "art": lambda n: f"c{n % 3}"},
        {"label": "art"},
    ),
    "a conversation has no class": ({"messages": lambda _: TURNS, "topic": lambda n: f"c{n % 3}"}, {}),
    "two columns ask": (
        {"col1": lambda n: f"Is it {n}?", "col2": lambda n: f"Was it {n}?", "col3": lambda n: f"it is {n}"},
        {},
    ),
    "a second question is no answer": (
        {"question": lambda n: f"Is it {n}?", "col2": lambda n: f"Sure, {n}?"},
        {},
    ),
    "one row in two asks": (
        {"col1": lambda n: f"It is {n}{'?' * (n % 2)}", "col2": lambda n: f"it is {n}"},
        {},
    ),
}  # fmt: skip


def write(folder: Path, row: dict[str, Value]) -> None:
    rows = [{name: value(n) for name, value in row.items()} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def looked(folder: Path, **given: str) -> Look:
    return with_roles(look_at("rows.jsonl", folder), given)


def answered(folder: Path, task: str | None, asked: list[str], **columns: str) -> Answers:
    def ask(question: str, default: str | None) -> str:
        asked.append(question)
        return default or columns[question.split()[3]]

    given = Given(data="rows.jsonl", task=task)
    return ask_for_study("demo", ask_for_rows(given, folder, ask, asked.append), given, ask, asked.append)


@pytest.mark.parametrize("kind", GUESSES)
def test_a_role_is_guessed_where_one_column_is_left_for_it(tmp_path: Path, kind: str) -> None:
    row, guessed = GUESSES[kind]
    write(tmp_path, row)
    look = looked(tmp_path)
    assert {role: look.roles[role] for role in look.guessed} == guessed


def test_a_context_beside_an_answer_is_not_taken_for_the_question(tmp_path: Path) -> None:
    write(tmp_path, {"text": lambda n: f"Once {n}", "answer": lambda n: f"it is {n}"})
    assert looked(tmp_path).roles == {"answer": "answer"}


def test_what_a_person_names_is_not_guessed_again(tmp_path: Path) -> None:
    write(tmp_path, GUESSES["a question and its answer"][0] | {"col3": lambda n: f"and {n}"})
    first = looked(tmp_path)
    assert first.roles == {"question": "col1"}
    assert with_roles(first, {"question": "col3"}).roles == {"question": "col3"}
    assert looked(tmp_path, answer="col3").roles == {"question": "col1", "answer": "col3"}


def test_rows_that_can_not_be_read_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": 1}\nworld\n')
    with pytest.raises(InputError, match=r"^rows\.jsonl, line 2: is no JSON"):
        look_at("rows.jsonl", tmp_path)


def test_images_beside_their_rows_need_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", {"image": lambda n: f"{n}.png"})
    (tmp_path / "0.png").touch()
    assert look_at("data/rows.jsonl", tmp_path).images == "."
    (tmp_path / "data" / "0.png").touch()
    assert look_at("data/rows.jsonl", tmp_path).images is None


def test_few_answers_may_be_labels_too(tmp_path: Path) -> None:
    write(tmp_path, {"question": lambda n: f"Q {n}", "answer": lambda n: f"c{n % 3}", "col3": lambda n: f"c{n % 2}"})
    roles = {"question": "question", "answer": "answer"}
    assert looked(tmp_path, label="answer").roles == roles | {"label": "answer"}
    assert looked(tmp_path, label="col3", answer="col3").roles == roles | {"label": "col3", "answer": "col3"}
    assert looked(tmp_path, question="answer").roles.get("answer") != "answer", "it can't be both"


@pytest.mark.parametrize("odd", [3, None, 2.5, True])
@pytest.mark.parametrize("at", [0, 51])
def test_one_odd_answer_makes_no_column_unknown(tmp_path: Path, odd: object, at: int) -> None:
    """Few answers are labels, whatever one of them is: the splits are stratified by them."""
    write(tmp_path, {"question": lambda n: f"Is it {n}?", "answer": lambda n: odd if n == at else f"c{n % 3}"})
    said: list[str] = []
    columns = answered(tmp_path, None, said).columns
    assert columns == {"question": "question", "answer": "answer", "label": "answer"}
    assert any(f"{3 if odd is None else 4} different values, as " in words for words in said)


def test_a_guess_that_the_task_does_not_use_is_not_asked_about(tmp_path: Path) -> None:
    write(tmp_path, GUESSES["a question and its answer"][0] | {"bild": lambda n: f"{n}.png", "art": lambda n: n % 3})
    asked: list[str] = []
    found = answered(tmp_path, "vlm-classify", asked, label="art")
    assert (found.columns["label"], found.columns["question"]) == ("art", "col1")
    assert "Column of the question" in asked
    assert "Column of the answer" not in asked


def test_answers_that_are_judged_are_no_labels_where_they_are_few(tmp_path: Path) -> None:
    verdicts = {"prompt": lambda n: f"Is it {n}?", "answer": lambda n: f"c{n % 3}", "desirable": lambda n: n % 2 == 0}
    write(tmp_path, verdicts)
    assert "label" not in answered(tmp_path, None, []).columns


def test_the_column_of_the_splits_is_not_called_unused(tmp_path: Path) -> None:
    row, _ = GUESSES["beside groups, splits and ids"]
    write(tmp_path, row | {"note": lambda n: n})
    assert unused_columns(answered(tmp_path, "text-sft", [])) == ["fall", "note"]
