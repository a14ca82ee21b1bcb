"""`hpsearch new` without a file: it looks at the rows, asks a few questions, and writes a study file that loads."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from hpsearch.data.rows import read_rows
from hpsearch.data.source import open_source
from hpsearch.errors import InputError
from hpsearch.propose.questions import Ask, Given, Say, ask_for_rows, ask_for_study
from hpsearch.propose.study import Answers, study_name, study_text
from hpsearch.spec import load_study

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ROWS: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "an image and a question": (
        {"img": "i/{n}.png", "question": "How many {n}?", "answer": "{n}", "patient_id": "p{n}", "note": "x"},
        "vlm-sft",
        {"image": "img", "question": "question", "answer": "answer", "group": "patient_id"},
    ),
    "pairs": (
        {"prompt": "Q {n}", "chosen": "yes", "rejected": "no"},
        "text-preference",
        {"question": "prompt", "chosen": "chosen", "rejected": "rejected"},
    ),
    "an instruction with its input": (
        {"instruction": "Do {n}", "input": "x", "output": "{n}"},
        "text-sft",
        {"answer": "output"},
    ),
    "conversations": ({"messages": TURNS}, "text-sft", {"messages": "messages"}),
    "a text and its class": (
        {"text": "word {n}", "label": "c{class}"},
        "text-classify",
        {"question": "text", "label": "label"},
    ),
    "images and classes": (
        {"path": "{n}.jpg", "species": "c{class}"},
        "vlm-classify",
        {"image": "path", "label": "species"},
    ),
    "plain text": ({"text": "Once {n}"}, "text-sft", {"text": "text"}),
}  # fmt: skip


def write(folder: Path, row: dict[str, Any], num: int = 60) -> None:
    def filled(value: Any, n: int) -> Any:
        return value.replace("{n}", str(n)).replace("{class}", str(n % 3)) if isinstance(value, str) else value

    rows = [{name: filled(value, n) for name, value in row.items()} for n in range(num)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def never(question: str, default: str | None) -> str:
    if default is None:
        raise AssertionError(f"asked: {question}")
    return default


def answered(study: str, given: Given, folder: Path, ask: Ask, say: Say) -> Answers:
    return ask_for_study(study, ask_for_rows(given, folder, ask, say), given, ask, say)


@pytest.mark.parametrize("kind", ROWS)
def test_columns_are_recognized(tmp_path: Path, kind: str) -> None:
    row, task, columns = ROWS[kind]
    write(tmp_path, row)
    answers = answered("demo", Given(data="rows.jsonl"), tmp_path, never, lambda _: None)
    (tmp_path / "demo.yaml").write_text(study_text(answers))
    spec = load_study(tmp_path / "demo.yaml").spec
    assert (spec.task, spec.data.columns.named()) == (task, columns)
    assert (spec.budget.memory_gib, spec.search and spec.search.limits.hours) == (16, 8)


def test_the_study_reads_its_rows(tmp_path: Path) -> None:
    write(tmp_path, ROWS["an image and a question"][0])
    (tmp_path / "i").mkdir()
    for n in range(60):
        Image.new("L", (8, 8), n).save(tmp_path / "i" / f"{n}.png")
    answers = answered("demo", Given(data="rows.jsonl", base="tiny:gemma3"), tmp_path, never, lambda _: None)
    (tmp_path / "demo.yaml").write_text(study_text(answers))
    spec = load_study(tmp_path / "demo.yaml").spec
    read = read_rows(open_source(spec.data, tmp_path), spec.data, tmp_path / "store", lambda *_: None)
    assert len(read.rows) == 60
    assert "# not used: note" in study_text(answers)


def test_a_column_of_splits_and_a_template(tmp_path: Path) -> None:
    write(tmp_path, {"question": "Q {n}", "context": "C {n}", "answer": "yes", "split": "train"})
    lines = (tmp_path / "rows.jsonl").read_text().replace('"train"', '"dev"', 5)
    (tmp_path / "rows.jsonl").write_text(lines)
    answers = answered("demo", Given(data="rows.jsonl"), tmp_path, never, lambda _: None)
    assert answers.look.split == {"column": "split", "train": "train", "validation": "dev", "test": 0.1}
    assert answers.prompt == "{context}\n\n{question}"


def test_a_column_that_is_not_recognized_is_asked_for_until_it_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"spm": "Q {n}", "svar": "A {n}"})
    asked, said = [], []
    replies = {"Column of the answer": ["svarr", "svar"], "Column of the question": ["spm"]}

    def ask(question: str, default: str | None) -> str:
        asked.append(question)
        return replies[question].pop(0) if question in replies else str(default)

    answers = answered("demo", Given(data="rows.jsonl"), tmp_path, ask, said.append)
    assert answers.columns == {"question": "spm", "answer": "svar"}
    assert "there is no column 'svarr'; did you mean 'svar'?" in said
    assert len(asked) == 7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"data": "gone.jsonl"}, "no file or folder"),
        ({"data": " "}, "name a file of rows"),
        ({"data": "rowz"}, "there is no file or folder rowz; from the hub it can't be read"),
        ({"base": " "}, "--base: expected a hub name or a folder"),
        ({"base": "tiny:gemma4"}, "--base: there is no 'tiny:gemma4'; did you mean 'tiny:gemma3'"),
        ({"task": "vlm-stf"}, "did you mean 'vlm-sft'"),
        ({"task": "text-curriculum"}, "text-curriculum learns in stages, which can't be asked for here: take text-sft"),
        ({"columns": {"stage": "chosen"}}, "--columns: text-preference takes no stage column"),
        ({"memory_gib": -1}, "above 0"),
        ({"hours": 0}, "--hours: expected a number above 0"),
    ],
)
def test_a_wrong_value_of_the_command_line_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    write(tmp_path, ROWS["pairs"][0])
    with pytest.raises(InputError, match=words):
        answered("demo", Given(**({"data": "rows.jsonl"} | given)), tmp_path, never, lambda _: None)


def test_on_a_terminal_each_question_has_a_proposal(tmp_path: Path) -> None:
    """As a person does it: the file's name, then Enter; the last answer is their own."""
    write(tmp_path, ROWS["a text and its class"][0])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hpsearch", "new"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.write(ours, b"rows.jsonl\n\n24\n\n12\n")
        said, _ = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert "next: hpsearch show rows.yaml" in said
    assert "hpsearch-study.schema.json beside it: editors" in said
    made = yaml.safe_load((tmp_path / "rows.yaml").read_text())
    assert (made["budget"]["memory_gib"], made["search"]["limits"]["hours"]) == (24, 12)


def test_without_a_terminal_the_rows_must_be_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpsearch", "new"]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--data" in done.stderr


@pytest.mark.parametrize(
    ("text", "name"), [("données (1)", "donn_es__1_"), ("ä", "study"), ("..", "study"), ("v1.5-b", "v1.5-b")]
)
def test_a_study_is_named_after_its_rows_whatever_their_name(text: str, name: str) -> None:
    assert study_name(text) == name


def test_all_columns_that_a_task_needs_are_asked_for_and_a_patient_is_proposed(tmp_path: Path) -> None:
    """Of rows with names in another language."""
    write(tmp_path, {"bild": "{n}.png", "spm": "Tell {n}", "svar": "c{class}", "fall": "p{n}"}, num=60)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows = [row | {"fall": f"p{n // 2}"} for n, row in enumerate(lines)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = {"question": "spm", "answer": "svar", "fall": "fall"}

    def ask(question: str, default: str | None) -> str:
        return next((reply for word, reply in replies.items() if word in question), None) or str(default)

    answers = answered("demo", Given(data="rows.jsonl", task="vlm-sft"), tmp_path, ask, lambda _: None)
    wanted = {"image": "bild", "question": "spm", "answer": "svar", "group": "fall", "label": "svar"}
    assert answers.columns == wanted
    columns = {role: wanted[role] for role in ("question", "answer", "group")}
    given = Given(data="rows.jsonl", task="vlm-sft", columns=columns)
    assert answered("demo", given, tmp_path, never, lambda _: None).columns == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "vlm-sft"], "no answer to: Column of the question"),
        (["--columns", "answr=svar"], "there is no role 'answr'; did you mean 'answer'"),
        (["--columns", "answer"], "expected role=column"),
        (["--columns", "answer=gone"], "there is no column 'gone'"),
    ],
)
def test_what_can_t_be_asked_ends_at_once(tmp_path: Path, options: list[str], words: str) -> None:
    write(tmp_path, {"spm": "Q {n}", "svar": "A {n}"})
    command = [sys.executable, "-m", "hpsearch", "new", "--data", "rows.jsonl", *options]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert words in done.stderr


def test_odd_columns_are_no_obstacle(tmp_path: Path) -> None:
    """Names that are no YAML or move the cursor; mappings and lists are no questions and answers."""
    odd = {"a\nb: c": "z\x1b[2J", "{x}": "1", "question": {"text": "Q {n}"}, "reply": "A {n}", "answer": ["A"]}
    write(tmp_path, odd | {"spm": "Q {n}"})
    said: list[str] = []
    with pytest.raises(AssertionError, match="Column of the question"):
        answered("demo", Given(data="rows.jsonl", columns={"answer": "reply"}), tmp_path, never, said.append)
    given = Given(data="rows.jsonl", columns={"question": "spm", "answer": "reply"})
    (tmp_path / "demo.yaml").write_text(study_text(answered("demo", given, tmp_path, never, said.append)))
    columns = load_study(tmp_path / "demo.yaml").spec.data.columns
    assert (columns.question, columns.answer) == ("spm", "reply")
    assert "\x1b" not in "".join(said)


def test_a_question_that_is_given_is_the_one_that_is_asked(tmp_path: Path) -> None:
    write(tmp_path, {"context": "C {n}", "question": "Q {n}", "other": "O {n}", "answer": "A {n}"})
    given = Given(data="rows.jsonl", columns={"question": "other"})
    assert answered("demo", given, tmp_path, never, lambda _: None).prompt == "{context}\n\n{other}"


def test_images_that_lie_beside_the_study_and_not_beside_their_rows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", {"image": "data/{n}.png", "question": "Q {n}", "answer": "A"})
    Image.new("L", (8, 8)).save(tmp_path / "data" / "0.png")
    answers = answered("demo", Given(data="data/rows.jsonl"), tmp_path, never, lambda _: None)
    (tmp_path / "demo.yaml").write_text(study_text(answers))
    assert load_study(tmp_path / "demo.yaml").spec.data.images == "."


ASKED = {
    "names of another language": ("bild", "frage", "antwort"),
    "names that say nothing": ("col1", "col2", "col3"),
}


@pytest.mark.parametrize("names", ASKED.values(), ids=ASKED.keys())
@pytest.mark.parametrize("replies", ["few", "free"])
def test_a_question_is_never_the_class(tmp_path: Path, names: tuple[str, str, str], replies: str) -> None:
    image, question, answer = names
    reply = "c{class}" if replies == "few" else "it is {n}"
    write(tmp_path, {question: "Is it {class}?", answer: reply, image: "{n}.png", "patient": "P1"})
    said: list[str] = []
    answers = answered("demo", Given(data="rows.jsonl"), tmp_path, never, said.append)
    assert answers.task == "vlm-sft"
    labels = {"label": answer} if replies == "few" else {}
    assert answers.columns == {"image": image, "question": question, "answer": answer, "group": "patient"} | labels
    assert ("question (a guess)" in said[0]) is (question == "col2")


def test_a_guess_is_confirmed_and_may_be_corrected(tmp_path: Path) -> None:
    write(tmp_path, {"col1": "Is it {class}?", "col2": "c{class}", "col3": "x", "image": "{n}.png"})
    replies = {"Column of the question": "col1", "Column of the answer": "col2"}
    asked: dict[str, str | None] = {}

    def ask(question: str, default: str | None) -> str:
        asked[question] = default
        return replies.get(question) or str(default)

    answers = answered("demo", Given(data="rows.jsonl", task="vlm-sft"), tmp_path, ask, lambda _: None)
    assert asked | {"Column of the question": "col1", "Column of the answer": None} == asked
    assert answers.columns == {"image": "image", "question": "col1", "answer": "col2", "label": "col2"}


@pytest.mark.parametrize("by", ["the command line", "the dialog"])
def test_the_column_of_the_question_is_no_label_whoever_names_it(tmp_path: Path, by: str) -> None:
    """Where its texts ask nothing and are few, it looks like a class."""
    write(tmp_path, {"bild": "{n}.png", "spm": "Tell me of {class}", "svar": "it is {n}"})
    named = {"question": "spm", "answer": "svar"}

    def ask(question: str, default: str | None) -> str:
        return str(named.get(question.split()[-1], default))

    given = Given(data="rows.jsonl", columns=named) if by == "the command line" else Given(data="rows.jsonl")
    answers = answered("demo", given, tmp_path, never if given.columns else ask, lambda _: None)
    assert (answers.task, answers.columns) == ("vlm-sft", {"image": "bild"} | named)


def test_without_a_terminal_nothing_is_guessed_between_columns(tmp_path: Path) -> None:
    write(tmp_path, {"bild": "{n}.png", "spm": "Tell me of {class}", "svar": "c{class}"})
    with pytest.raises(AssertionError, match="Column of the question"):
        answered("demo", Given(data="rows.jsonl"), tmp_path, never, lambda _: None)


def test_tasks_are_listed_where_one_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, ROWS["a text and its class"][0])
    said: list[str] = []
    answered("demo", Given(data="rows.jsonl", task="text-classify"), tmp_path, never, said.append)
    assert len(said) == 1
    answered("demo", Given(data="rows.jsonl"), tmp_path, never, said.append)
    assert said[-1].startswith("Tasks:\n  text-sft ")
    assert "curriculum" not in said[-1], "which can't be asked for here"
