"""Specs in the store: each version comes back as today's spec, and what can't be read gives a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest

import hpsearch.store.specs as specs
from hpsearch.errors import InputError
from hpsearch.spec import StudySpec

VERSION_0 = """{"study":"demo","description":"as it was kept before there were versions","task":"text-sft",
"model":{"base":"tiny:qwen2","revision":null,"quantization":"nf4"},
"data":{"source":"rows.jsonl"},"lora":{"r":8,"target_modules":["q_proj","v_proj"]},
"objective":["loss","exact_match"],"budget":{"reports":3},
"search":{"trials":7,"sampler":{"name":"tpe","startup_trials":3},
"space":{"training.learning_rate":{"low":1e-06,"high":0.001,"log":true,"step":null}}}}"""


def test_a_text_without_a_version_is_read() -> None:
    spec = specs.from_text(VERSION_0)
    assert spec.description == "as it was kept before there were versions"
    assert (spec.lora.r, spec.searched.trials, spec.objective_names) == (8, 7, ["loss", "exact_match"])


def test_a_spec_comes_back_as_it_was_written() -> None:
    spec = specs.from_text(VERSION_0)
    text = specs.to_text(spec)
    assert json.loads(text)["version"] == specs.VERSION
    assert specs.from_text(text) == spec


def test_every_step_from_its_version_on_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(spec: dict[str, Any]) -> dict[str, Any]:
        return {**spec, "description": "step 1"}

    def two(spec: dict[str, Any]) -> dict[str, Any]:
        return {**spec, "description": f"{spec['description']}, step 2"}

    kept = specs.to_text(specs.from_text(VERSION_0))
    monkeypatch.setattr(specs, "STEPS", (*specs.STEPS, one, two))
    monkeypatch.setattr(specs, "VERSION", len(specs.STEPS))
    for text in (VERSION_0, kept):
        assert specs.from_text(text).description == "step 1, step 2"
    in_between = json.dumps({"version": specs.VERSION - 1, "spec": json.loads(VERSION_0)})
    assert specs.from_text(in_between).description == "as it was kept before there were versions, step 2"


def version_1(space: str) -> str:
    training = '{"batch_size":2,"gradient_accumulation_steps":8,"evaluation_batch_size":4}'
    spec = VERSION_0.replace('"budget"', f'"training":{training},"budget"').replace("training.learning_rate", space)
    return f'{{"version": 1, "spec": {spec}}}'


def test_batch_size_was_the_rows_per_forward() -> None:
    training = specs.from_text(version_1("training.learning_rate")).training
    assert (training.batch_size, training.micro_batch, training.evaluation_batch_size) == (16, 2, 4)


def test_a_batch_size_that_was_searched_beside_several_forwards_can_t_be_read() -> None:
    with pytest.raises(InputError, match="it is the rows per optimizer step: start it again"):
        specs.from_text(version_1("training.batch_size"))


@pytest.mark.parametrize(
    ("forwards", "rows", "expected"),
    [
        ("[1,2,8]", None, [2, 4, 16]),
        ("[1,2]", "[2,4]", [2, 4, 8]),
        ('{"low":1,"high":8,"log":false,"step":null}', None, {"low": 2, "high": 16, "log": False, "step": None}),
        ('{"low":1,"high":8}', "[2,4]", {"low": 2, "high": 32, "log": False, "step": None}),
    ],
)
def test_a_search_of_forwards_is_one_of_rows(forwards: str, rows: str | None, expected: Any) -> None:
    text = version_1("training.gradient_accumulation_steps")
    text = text.replace('{"low":1e-06,"high":0.001,"log":true,"step":null}', forwards)
    if rows:
        text = text.replace('"space":{', f'"space":{{"training.batch_size":{rows},')
    spec = specs.from_text(text)
    assert list(spec.searched.space) == ["training.batch_size"]
    assert spec.model_dump(mode="json")["search"]["space"]["training.batch_size"] == expected
    assert specs.from_text(specs.to_text(spec)) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"version": 99, "anything": 1}',
            r"was made by a newer hpsearch: its spec has version 99, .* update hpsearch",
        ),
        (VERSION_0.replace('"r":8', '"r":0'), r"can't be read: lora\.r: Input should be greater"),
        (VERSION_0.replace('"r":8', '"r":0,"rank":8'), r"can't be read: lora\.r: .* \(and 1 more\)"),
        ("", "can't be read: its stored spec is not valid JSON"),
        ("[]", "can't be read: its stored spec is not valid JSON"),
        ('{"version": "one", "spec": {}}', "can't be read: its stored spec is not valid JSON"),
        ('{"version": 1}', "can't be read: its stored spec is not valid JSON"),
    ],
)
def test_what_can_t_be_read_is_reported_in_words(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"^{reason}") as raised:
        specs.from_text(text)
    assert len(str(raised.value).splitlines()) == 1


def test_the_fixture_is_a_spec() -> None:
    """As the version before versions wrote it: a bare dump."""
    assert specs.from_text(StudySpec.model_validate_json(VERSION_0).model_dump_json()) == specs.from_text(VERSION_0)
