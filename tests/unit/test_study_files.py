"""Study files: all mistakes at once, each with its line and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hpsearch.errors import InputError, StudyFileErrors
from hpsearch.spec import dump_study, load_study
from hpsearch.spec.base import Spec

GOOD = """\
study: demo
task: text-sft
model: {base: "tiny:qwen2"}
data:
  source: rows.jsonl
  columns: {question: q, answer: a}
search:
  space:
    training.learning_rate: {low: 1e-6, high: 1e-4, log: true}
    lora.r: [8, 16]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def mistakes(folder: Path, text: str) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(StudyFileErrors) as raised:
        load_study(written(folder, text))
    return {mistake.key: (mistake.line, mistake.message) for mistake in raised.value.mistakes}


def test_a_good_file_loads_with_numbers_in_scientific_notation(tmp_path: Path) -> None:
    spec = load_study(written(tmp_path, GOOD), ["training.learning_rate=2e-5"]).spec
    assert spec.training.learning_rate == 2e-5
    assert spec.searched.space["training.learning_rate"].low == 1e-6  # type: ignore[union-attr]


def test_every_mistake_is_reported_with_its_line(tmp_path: Path) -> None:
    text = """\
study: demo
task: vlm
model:
  base: tiny:qwen2
  quantisation: nf4
data:
  source: rows.jsonl
  split: {train: 0.8, validation: 0.1, test: 0.3}
lora: {r: 0}
training: {batch_size: four}
search:
  pruner: medain
  space:
    training.learning_rate: {low: 1e-4, high: 1e-5}
    learning_rate: {low: 1, high: 2}
    lora.dropout: {low: 0, high: 0.1, log: true}
    lora.alpha: [0, 8]
    lora.r: {low: 4, high: 4}
"""
    found = mistakes(tmp_path, text)
    assert found["task"][0] == 2
    assert found["task"][1] == "there is no task 'vlm'; did you mean 'vlm-sft'?"
    assert found["model.quantisation"] == (5, "unknown key; did you mean 'quantization'?")
    assert found["data.split"] == (8, "train, validation and test must add up to 1, not 1.2")
    assert found["lora.r"] == (9, "must be at least 1, not 0")
    assert found["training.batch_size"][0] == 10
    assert found["search.pruner"] == (12, "there is no 'medain'; did you mean 'median'?")
    assert "inverted" in found["search.space.training.learning_rate"][1]
    assert found["search.space.learning_rate"][0] == 15
    assert "did you mean 'training.learning_rate'?" in found["search.space.learning_rate"][1]
    assert found["search.space.lora.dropout"] == (16, "log: true needs low above 0, not 0")
    assert found["search.space.lora.alpha"] == (17, "must be at least 1, not 0")
    assert found["search.space.lora.r"] == (18, "the range is empty: low and high are both 4")
    assert len(found) == 11


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "study: demo\ntask: text-sft\nmodel: {}\n")
    assert found["model.base"] == (3, "is missing")
    assert found["data"] == (None, "is missing")


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (("task: text-sft", "task: vlm-sft"), "data.columns.image", "needs an image column"),
        (("answer: a", "image: i, answer: a"), "data.columns.image", "did you mean task: vlm-sft?"),
        (("answer: a", "messages: m"), "data.columns.question", "does not go together with messages rows"),
        (("question: q, answer: a", "prompt: p"), "data.columns.completion", "is missing"),
        (("search:\n", "search:\n  sampler: grid\n"), "search.sampler", "a grid needs a step"),
        (("[8, 16]", "[]"), "search.space.lora.r", "must not be empty"),
        (("lora.r: [8, 16]", "lora.r: {low: 1.5, high: 8}"), "search.space.lora.r", "whole numbers"),
    ],
)
def test_fields_that_do_not_go_together(tmp_path: Path, change: tuple[str, str], key: str, words: str) -> None:
    assert words in mistakes(tmp_path, GOOD.replace(*change))[key][1]


@pytest.mark.parametrize(
    "text",
    [
        "1e5",
        "1_000",
        "0x1f",
        "1:30",
        "2024-01-01",
        "yes",
        "null",
        "~",
        "",
        "a: b # c",
        "é",
        "a\u2028b\x85",
        "a\n\u2029b",
    ],
)
def test_a_study_that_is_written_is_read_again(tmp_path: Path, text: str) -> None:
    spec = load_study(written(tmp_path, GOOD)).spec
    named = spec.model_copy(update={"description": text, "model": spec.model.model_copy(update={"revision": text})})
    assert load_study(written(tmp_path, dump_study(named))).spec == named


def kinds_of(kind: type[Spec]) -> list[type[Spec]]:
    return [kind, *(found for child in kind.__subclasses__() for found in kinds_of(child))]


def test_a_question_that_no_row_is_asked_is_not_written(tmp_path: Path) -> None:
    spec = load_study(written(tmp_path, GOOD)).spec
    assert "What is in this image?" not in dump_study(spec)
    seen = GOOD.replace("text-sft", "vlm-classify").replace("{question: q, answer: a}", "{image: i, label: l}")
    assert "prompt: What is in this image?" in dump_study(load_study(written(tmp_path, seen)).spec)
    turns = GOOD.replace("question: q, answer: a", "messages: m")
    assert "prompt:" not in dump_study(load_study(written(tmp_path, turns)).spec)


def test_a_written_study_leaves_out_nothing_but_defaults() -> None:
    """It leaves out what is none, so none may not be another choice than the default."""
    fields = {f"{kind.__name__}.{name}": field for kind in kinds_of(Spec) for name, field in kind.model_fields.items()}
    may_be_none = {name for name, field in fields.items() if type(None) in get_args(field.annotation)}
    assert "ModelSpec.revision" in may_be_none
    assert {name for name in may_be_none if fields[name].default is not None} == set()


@pytest.mark.parametrize("key", ["data.examples", "training.learning_rate", "data.balance", "search.trials"])
def test_yes_is_no_number(tmp_path: Path, key: str) -> None:
    with pytest.raises(StudyFileErrors) as raised:
        load_study(written(tmp_path, GOOD), [f"{key}=true"])
    (mistake,) = raised.value.mistakes
    assert mistake.key == key
    assert mistake.message.endswith("found 'true'")


def test_no_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "study: demo\ntask: [text-sft\n")[""][0] == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [("training.learning_rate", "expected KEY=VALUE"), ("study.x=1", "is no section")],
)
def test_overrides_that_make_no_sense(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_study(written(tmp_path, GOOD), [override])


def test_an_override_may_name_a_searched_knob(tmp_path: Path) -> None:
    spec = load_study(written(tmp_path, GOOD), ["search.space.lora.r=[4]"]).spec
    assert spec.searched.space["lora.r"] == [4]


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(InputError, match=r"did you mean .*study\.yaml"):
        load_study(tmp_path / "studdy.yaml")
