"""Rows as they come: a prompt over several columns, answers by other names, and what is said of both in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpsearch.data.manifest import Manifest
from hpsearch.data.rows import ReadRows
from hpsearch.errors import FieldError, InputError
from hpsearch.results.predict import PredictionOptions, ask, predict_file
from hpsearch.spec.data import ColumnsSpec, DataSpec
from hpsearch.spec.template import parse
from hpsearch.watch.report.story import data_facts
from tests.unit.answer_fixtures import answering, echo, read_jsonl, trained
from tests.unit.answer_fixtures import write_jsonl as written
from tests.unit.opening_fixtures import Desk
from tests.unit.test_cross_mistakes import CLASSIFY, TEXT, mistakes
from tests.unit.worker_fixtures import nobody, plays

Read = Callable[..., ReadRows]
WriteJsonl = Callable[[str, list[Any]], str]
ALPACA = "Do it[if input:, with an input].\n{instruction}[\n\n### Input:\n{input}]"


def said(read: ReadRows) -> list[tuple[str, str]]:
    return [(row.messages[0]["content"], row.messages[1]["content"]) for row in read.rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{q}\n\nContext: {c}", "Why?\n\nContext: so"),
        ("{q}[ ({none})][ and {c}]", "Why? and so"),
        ("{q}[ {c} {none}]", "Why?"),
        ("[if c:with][if not c:without] {q}[if none: never][if not none:!]", "with Why?!"),
        ("[if c:{q}][if none:{q}]", "Why?"),
        ("[INST] {q} [/INST]", "[INST] Why? [/INST]"),
        ("{{q}} [[{c}]] {q}", "{q} [so] Why?"),
        ("{q}\n{choices:letters}", "Why?\nA. red\nB. 2"),
        ("{lines}", "one\n\ntwo"),
        ("{deep.inner} {deep.list}", "x y\n\nz"),
        ("{options}", "A. yes\nC. no"),
        ("{with.dot} {two words} {number} {truth}", "dotted spaced 0 False"),
    ],
)
def test_a_template_says_what_a_row_says(text: str, expected: str) -> None:
    values = {
        "q": "Why?",
        "c": "so",
        "none": None,
        "choices": ["red", 2],
        "lines": ["one", "", None, "two"],
        "deep": {"inner": "x", "list": ["y", "z"]},
        "options": {"A": "yes", "B": None, "C": "no"},
        "with.dot": "dotted",
        "two words": "spaced",
        "number": 0,
        "truth": False,
    }
    assert parse(text).fill(values) == (expected, None)


@pytest.mark.parametrize("value", [None, "", " \n", float("nan"), [], ["", None], "NaN"])
def test_what_a_row_does_not_say_leaves_it_out_but_in_brackets(value: Any) -> None:
    values = {"q": "Why?", "c": value}
    text, wrong = parse("{q} {c}").fill(values)
    assert (text, wrong) == ("", 'c is "nan"' if value == "NaN" else "empty c")
    assert parse("{q}[ {c}][if c: never]").fill(values) == ("Why?", None)


@pytest.mark.parametrize("text", ["What is this?", "Mark [it] so: [[x]] ]", ""])
def test_text_without_a_brace_is_the_same_for_every_row(text: str) -> None:
    assert (parse(text).columns, parse(text).fill({})) == ((), (text, None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "name of a column"),
        ("{q!r}", "name of a column"),
        ("{q:>9}", "name of a column"),
        ("{q[0]}", "name of a column"),
        ('Say {"a": 1}', "write {{ and }} for braces themselves"),
        ("{q", "a { without its partner"),
        ("q}", "a } without its partner"),
        ("{q} [a", "a [ without its ]"),
        ("{q} [a [b]]", "brackets in brackets"),
        ("{q} ]", "a ] without its ["),
    ],
)
def test_what_is_no_template_is_reported_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    study = TEXT.replace("columns: {question: q,", f"prompt: {json.dumps(text)}\n  columns: {{")
    ((key, line, message),) = mistakes(tmp_path, study)
    assert (key, line) == ("data.prompt", 6)
    assert words in message


def test_a_prompt_over_columns_takes_the_place_of_the_question(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [
        {"instruction": "Add", "input": "1 and 2", "output": "3", "unused": 1},
        {"instruction": "Greet", "input": "", "output": "Hello", "unused": 2},
        {"instruction": " ", "input": "x", "output": "y", "unused": 3},
    ]
    found = read(write_jsonl("rows.jsonl", rows), prompt=ALPACA, columns={"answer": "output"})
    assert said(found) == [
        ("Do it, with an input.\nAdd\n\n### Input:\n1 and 2", "3"),
        ("Do it.\nGreet", "Hello"),
    ]
    assert found.left_out == {"empty instruction": ["2"]}


def test_raw_prompts_and_labels_take_a_template_too(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", [{"i": "Add", "o": " 3\n", "kind": "sum"}])
    raw = read(source, prompt="### {i}\n\n", columns={"completion": "o"})
    assert said(raw) == [("### Add\n\n", " 3\n")]
    assert said(read(source, prompt="Kind of {i}?\n", columns={"label": "kind"})) == [("Kind of Add?", "sum")]


def test_the_columns_are_question_and_answer_unless_a_prompt_asks() -> None:
    assert DataSpec(source="x").columns == ColumnsSpec(question="question", answer="answer")
    assert DataSpec(source="x", prompt="Q: {q}").columns == ColumnsSpec(answer="answer")


def test_parts_of_a_column_and_named_classes(read: Read, tmp_path: Path) -> None:
    """As PubMedQA has them."""
    rows = {
        "question": ["Does it help?", "Is it safe?"],
        "context": [{"contexts": ["BACKGROUND", "RESULTS"], "labels": ["B", "R"]}, {"contexts": [], "labels": []}],
        "final_decision": [1, 0],
    }
    table = datasets.Dataset.from_dict(rows)
    table.cast_column("final_decision", datasets.ClassLabel(names=["no", "yes"])).save_to_disk(tmp_path / "saved")
    found = read(
        "saved",
        prompt="{question}[\n\nContext: {context.contexts}]",
        columns={"answer": "final_decision"},
        answers={"no": "No.", "yes": "Yes."},
    )
    assert said(found) == [
        ("Does it help?\n\nContext: BACKGROUND\n\nRESULTS", "Yes."),
        ("Is it safe?", "No."),
    ]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            "{qestion}",
            "the data has no column 'qestion' (did you mean 'question'?); it has: question, deep, pairs, answer",
        ),
        ("{question}[if ctx: x]", "the data has no column 'ctx'; it has: question, deep, pairs, answer"),
        ("{deep.other}", "the data has no column 'deep.other'; it has: deep.inner, deep.list"),
        ("{question.inner}", "the data has no column 'question.inner'; it has: question, deep, pairs, answer"),
        ("{pairs}", "column 'pairs' holds no text, nor a list of texts"),
        ("{deep}", "column 'deep' holds no text, nor a list of texts"),
    ],
)
def test_a_column_that_is_not_there_is_reported_with_those_that_are(
    read: Read, write_jsonl: WriteJsonl, prompt: str, words: str
) -> None:
    row = {"question": "Q?", "deep": {"inner": "x", "list": ["y"]}, "pairs": [{"key": "A"}], "answer": "a"}
    source = write_jsonl("rows.jsonl", [row])
    with pytest.raises(FieldError) as raised:
        read(source, prompt=prompt, columns={"answer": "answer"})
    assert (raised.value.key, raised.value.message) == ("data.prompt", words)


def test_the_image_is_no_text(read: Read, tmp_path: Path) -> None:
    image = datasets.Dataset.from_dict({"i": [None], "a": ["x"]}).cast_column("i", datasets.Image())
    image.save_to_disk(tmp_path / "saved")
    with pytest.raises(FieldError, match="holds no text"):
        read("saved", prompt="What is {i}?", columns={"image": "i", "answer": "a"})


@pytest.mark.parametrize(
    ("values", "answers", "left_out"),
    [
        ([0, 1, 2, 1], {0: "no", 1: "yes"}, {"answer '2' is not in data.answers": ["2"]}),
        ([False, True, True, None], {False: "no", True: "yes"}, {"empty answer": ["3"]}),
        ([0.0, 1.0, 0.5], {0: "no", 1: "yes"}, {"answer '0.5' is not in data.answers": ["2"]}),
        (["0", "1", "0", "x"], {0: "no", 1.0: "yes"}, {"answer 'x' is not in data.answers": ["3"]}),
    ],
)  # fmt: skip
def test_answers_get_other_names(
    read: Read, write_jsonl: WriteJsonl, values: list[Any], answers: dict[Any, str], left_out: dict[str, list[str]]
) -> None:
    source = write_jsonl("rows.jsonl", [{"q": f"Q{i}?", "a": value} for i, value in enumerate(values)])
    found = read(source, columns={"question": "q", "answer": "a"}, answers=answers)
    assert [answer for _, answer in said(found)][:2] == ["no", "yes"]
    assert found.left_out == left_out
    raw = read(source, columns={"prompt": "q", "completion": "a"}, answers=answers)
    assert said(raw) == said(found)


def test_choices_and_the_place_of_the_right_one(read: Read, write_jsonl: WriteJsonl) -> None:
    rows = [{"question": "Colour?", "choices": ["red", "blue"], "answer": 1}]
    source = write_jsonl("rows.jsonl", rows)
    found = read(source, prompt="{question}\n{choices:letters}\nAnswer:", answers={1: "B"})
    assert said(found) == [("Colour?\nA. red\nB. blue\nAnswer:", "B")]


def test_an_answer_that_no_row_has_is_a_mistake(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", [{"q": "A?", "a": 0}, {"q": "B?", "a": 1}, {"q": "C?", "a": 0}])
    with pytest.raises(FieldError) as raised:
        read(source, columns={"question": "q", "answer": "a"}, answers={0: "no", 1: "yes", 2: "maybe"})
    assert (raised.value.key, raised.value.message) == ("data.answers", "no row has the answer '2'; found: '0', '1'")


@pytest.mark.parametrize(
    ("text", "columns", "more", "expected"),
    [
        (TEXT, "question: q, answer: a", 'prompt: "{a} {b}"',
         ("data.columns.question", 7, "has no place: data.prompt asks over several columns already; write {q} in it")),
        (TEXT, "messages: m", 'prompt: "{a} {b}"', ("data.prompt", 6, "messages rows contain the whole text: ")),
        (TEXT, "messages: m", "answers: {0: a}", ("data.answers", 6, "messages rows have no answer column")),
        (CLASSIFY, "image: i, label: kind", "answers: {0: a}",
         ("data.answers", 6, "question-label rows have no answer column; other names for labels are data.labels")),
        (TEXT, "question: q, answer: a", "answers: {0: no, 1: yes}", ("data.answers", 6, "put the answer in quotes")),
        (TEXT, "question: q, answer: a", 'answers: {0: " "}', ("data.answers", 6, "0 becomes an empty answer")),
        (TEXT, "answer: a", 'prompt: "{b}[ {a}]"', ("data.prompt", 6, "{a} is data.columns.answer: the question ")),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_reported(
    tmp_path: Path, text: str, columns: str, more: str, expected: tuple[str, int, str]
) -> None:
    was = "question: q, answer: a" if text is TEXT else "image: i, label: kind"
    study = text.replace(f"columns: {{{was}}}", f"{more}\n  columns: {{{columns}}}")
    ((key, line, message),) = mistakes(tmp_path, study)
    assert (key, line) == expected[:2]
    assert expected[2] in message


@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ("objective: exact_match\n", "objective", "exact_match compares answers, and text rows have none"),
        ("evaluation: {metrics: [bleu]}\n", "evaluation.metrics", "bleu compares answers, and text rows have none"),
        ("evaluation: {prompts: {static: Be brief.}}\n", "evaluation.prompts", "text rows ask nothing"),
    ],
)
def test_plain_text_has_a_loss_and_no_answers(tmp_path: Path, more: str, key: str, words: str) -> None:
    study = TEXT.replace("question: q, answer: a", "text: t")
    assert mistakes(tmp_path, study + "objective: loss\n") == []
    ((found, _, message),) = mistakes(tmp_path, study + more)
    assert found == key
    assert words in message


def test_plain_text_is_read_whole(read: Read, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl("rows.jsonl", [{"t": " One.\n\nTwo. "}, {"t": ""}, {"t": "nan"}])
    found = read(source, columns={"text": "t"})
    assert said(found) == [("", " One.\n\nTwo. ")]
    assert found.left_out == {"empty text": ["1"], 'text is "nan"': ["2"]}


OVER_TWO = ("data.prompt='{q}[ ({c})]'", "data.columns={answer: a}")


def test_predictions_are_asked_as_the_training_was(desk: Desk) -> None:
    desk.write_rows([{"q": f"question {i}", "c": f"context {i}", "a": str(i)} for i in range(20)])
    folder = trained(desk, *OVER_TWO)
    rows = [{"q": "one?", "c": "so"}, {"q": "two?"}, {"c": "alone"}]
    source, output = written(desk.folder / "in.jsonl", rows), desk.folder / "out.jsonl"
    start, flags = plays(answering(echo)), {"force": False}
    predict_file(folder, source, output, PredictionOptions(), desk.storage, start, desk.tell, **flags)
    assert read_jsonl(output) == [
        rows[0] | {"prediction": "tuned: one? (so)"},
        rows[1] | {"prediction": "tuned: two?"},
        rows[2] | {"error": "empty q"},
    ]
    start = plays(answering(echo))
    (one,) = ask(folder, [], ["three?"], PredictionOptions(), desk.storage, start, desk.tell)
    assert one.answer == "tuned: three?"
    source = written(desk.folder / "in.jsonl", [{"c": "alone"}])
    with pytest.raises(
        InputError, match=r"no row has a column 'q', which the study's data\.prompt names; there are: c"
    ):
        predict_file(folder, source, output, PredictionOptions(), desk.storage, nobody, desk.tell, force=True)


def test_one_question_is_not_enough_for_a_prompt_over_two_columns(desk: Desk) -> None:
    desk.write_rows([{"q": f"question {i}", "c": f"context {i}", "a": str(i)} for i in range(20)])
    folder = trained(desk, "data.prompt='{q} {c}'", "data.columns={answer: a}")
    with pytest.raises(InputError, match=r"over several columns \(q, c\): write them to a JSONL file for --input"):
        ask(folder, [], ["three?"], PredictionOptions(), desk.storage, nobody, desk.tell)


def test_the_report_says_what_was_asked() -> None:
    data = DataSpec(source="x", prompt="{q} {c}", columns=ColumnsSpec(answer="a"), answers={"0": "no"}, examples=2)
    facts = dict(data_facts(data, Manifest(splits={}, left_out={})))
    assert facts["prompt over columns"] == "{q} {c}"
    assert facts["answers"] == "0 → no"
    assert facts["few-shot examples"] == "2 training rows before each question"
