"""Mistakes that pydantic and PyYAML find, in words that say what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.spec import load_study
from tests.unit.study_file_fixtures import TEXT


def told(folder: Path, text: str) -> str:
    (folder / "study.yaml").write_text(text)
    with pytest.raises(StudyFileErrors) as raised:
        load_study(folder / "study.yaml")
    (mistake,) = raised.value.mistakes
    return str(mistake)


@pytest.mark.parametrize("size", ["448x448", "[448]", "[0, 0]", "[448, 448, 3]", "true", "4", "448.5", "[a, b]"])
def test_an_image_size_that_is_none(tmp_path: Path, size: str) -> None:
    found = told(tmp_path, TEXT.replace("  columns", f"  image_size: {size}\n  columns"))
    assert found.startswith("line 6: data.image_size: expected the most pixels of a side, such as 448, or width and ")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("training: {learning_rate: fast}", "training.learning_rate: expected a number, found 'fast'"),
        ("training: {batch_size: 1.5}", "training.batch_size: expected a whole number, found 1.5"),
        ("training: {micro_batch: autoo}", "expected 'auto' or a whole number, found 'autoo'; did you mean 'auto'?"),
        ("training: {seed: }", "training.seed: expected a whole number, found nothing"),
        ("lora: {rslora: 7}", "lora.rslora: expected true or false, found 7"),
        ("lora: {target_modules: q}", "lora.target_modules: expected 'all-linear' or a list, such as [q], found 'q'"),
        ("lora: {target_modules: [1]}", "lora.target_modules.0: expected text, found 1: put it in quotes"),
        ("lora: {target_modules: []}", "lora.target_modules: must not be empty"),
        ("tracking: wandb", "tracking: expected a list, such as [wandb], found 'wandb'"),
        ("description: yes", "description: expected text, found true: put it in quotes"),
        ("description: {a}", "description: expected text, found {'a': None}: put it in quotes"),
        ("search: {space: {lora.r: 8}}", "search.space.lora.r: expected a range, such as {low: 1, high: 8}, or a list"),
        ("search: {sampler: {seed: 1}, space: {lora.r: [8]}}", "search.sampler: its name is missing"),
        ("search: {limits: {until: soon}, space: {lora.r: [8]}}", "until: expected a date and a time, as 2026-12-24"),
    ],
)
def test_a_value_of_another_kind(tmp_path: Path, more: str, words: str) -> None:
    text = TEXT[: TEXT.index("search:")] if more.startswith("search") else TEXT
    found = told(tmp_path, f"{text}{more}\n")
    assert found.startswith(f"line {text.count(chr(10)) + 1}: ")
    assert words in found


def test_a_mistake_in_a_split_column_has_its_own_key(tmp_path: Path) -> None:
    found = told(tmp_path, TEXT.replace("  columns", "  split: {column: part, validation: [1]}\n  columns"))
    assert found == "line 6: data.split.validation: expected text or a number, found [1]"


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("  source", "\tsource"), 5, "is indented with a tab: write spaces"),
        (("    lora.r", "  \tlora.r"), 9, "is indented with a tab: write spaces"),
        (("  columns", "    columns"), 6, "it is indented too far, or the line above lacks its ': '"),
        (("  columns", " columns"), 6, "is indented differently from the lines above"),
        (("study: demo", "study:demo"), 2, "the line above lacks its ': '"),
        (("task: text", "task:text"), 2, "expected a key, a colon and a space"),
        (("rows.jsonl", "a: b"), 5, "text with ': ' in it needs quotes"),
        (("rows.jsonl", '"rows.jsonl'), 5, "the quote that begins here is not closed"),
        (("[8, 16]", "[8, 16"), 9, "the list that begins here with [ is not closed"),
        (("[8, 16]", "[8,\t16"), 9, "the list that begins here with [ is not closed"),
        (("study: demo", "[demo]\nstudy: demo"), 2, "stands after the end of the first value: a file is one mapping"),
        (("answer: a}", "answer: a"), 6, "the section that begins here with { is not closed"),
        (("rows.jsonl", "@rows"), 5, "put it in quotes"),
        (("rows.jsonl", "*rows"), 5, "text that begins with * needs quotes"),
        (("rows.jsonl", "!rows"), 5, "text that begins with ! needs quotes"),
        (("rows.jsonl", '"C:\\data"'), 5, "write single quotes instead"),
        (("model:", "tracking: - wandb\nmodel:"), 3, "may not begin here: give it a line of its own"),
        (("model:", "tracking:\n  - wandb\n  a: b\nmodel:"), 5, "expected '- ', as before the other items"),
        (("model:", "---\nmodel:"), 3, "holds a second document after '---'"),
    ],
)
def test_broken_yaml(tmp_path: Path, change: tuple[str, str], line: int, words: str) -> None:
    found = told(tmp_path, TEXT.replace(*change))
    assert found.startswith(f"line {line}: ")
    assert words in found


@pytest.mark.parametrize(("text", "words"), [("", "is empty"), ("- a\n", "holds a list"), ("study\n", "holds a text")])
def test_a_file_without_keys(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=f"{words}; a study file holds keys and values"):
        load_study(tmp_path / "study.yaml")
