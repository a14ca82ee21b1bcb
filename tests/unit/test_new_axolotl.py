"""Rows of Axolotl's data formats, and plain texts, as `hpsearch new` has them read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpsearch.convert.axolotl_data import _ALPACA
from hpsearch.convert.prompts import joined, merged
from tests.unit.new_fixtures import AXOLOTL, LLAMAFACTORY, make
from tests.unit.test_new_rows import PAIRS, TURNS, asked, llamafactory_data, rewritten, write_json


@pytest.mark.parametrize("kind", ["alpaca", "alpaca:chat"])
def test_alpaca_of_axolotl_keeps_its_wording(workplace: Path, kind: str) -> None:
    file = write_json(workplace / "pairs.json", PAIRS)
    made = make(workplace, AXOLOTL, datasets=[{"path": str(file), "type": kind, "ds_type": "json"}])
    assert made.spec.data.columns.named() == {"completion": "output"}
    (first, _), (second, hello) = asked(made, workplace)
    with_input, without_input = _ALPACA[kind]
    assert first == with_input.replace("{instruction}", "Add").replace("{input}", "1 and 2")
    assert second == without_input.replace("{instruction}", "Greet")
    assert hello == "Hello"
    assert "[if input:, paired with an input that provides further context]" in made.spec.data.prompt


def test_a_format_of_ones_own_is_kept(workplace: Path) -> None:
    file = write_json(workplace / "pairs.json", [{"q": "Why {input}?", "a": "So."}])
    kind = {
        "system_prompt": "Be kind. ",
        "format": "Q: {instruction} A:",
        "field_instruction": "q",
        "field_output": "a",
    }
    made = make(workplace, AXOLOTL, datasets=[{"path": str(file), "type": kind}])
    assert asked(made, workplace) == [("Be kind. Q: Why {input}? A:", "So.")]


FORMATS = [
    {"format": "[INST] {instruction} {input} [/INST]", "no_input_format": "[INST] {instruction} [/INST]"},
    {"format": "{instruction} {{x}}\n{input}"},
    {"format": "With {input}: {instruction}", "no_input_format": "Without: {instruction} (alone)"},
    {"field_system": "sys", "format": "{system} {instruction} {input}", "no_input_format": "{instruction}"},
    {"field_system": "sys",
     "format": "<s>{system}</s> {instruction} {input}", "no_input_format": "{system} {instruction}"},
    {"format": "{system}{instruction}\n\n### {input}\n\n###", "no_input_format": "{instruction}\n\n###"},
    {},
]  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_a_template_says_what_the_script_would_write(workplace: Path, kind: dict[str, str]) -> None:
    rows = [{**row, "sys": system} for row, system in zip(PAIRS, ["Calm.", "", "x"], strict=True)]
    file = write_json(workplace / "pairs.json", rows)
    entry = {"path": str(file), "type": kind}
    as_script = rewritten(make(workplace, AXOLOTL, datasets=[{**entry, "split": "train[:2]"}]), workplace)
    made = make(workplace, AXOLOTL, datasets=[entry])
    if made.new.script is None:
        assert asked(made, workplace) == [(row["prompt"], row["completion"]) for row in as_script]
    assert (made.new.script is None) is (kind != FORMATS[3]), "a system prompt in one of the wordings alone"


TEXTS = [{"body": "One. [two] {three}"}, {"body": "Four."}]


def test_plain_text_of_axolotl(workplace: Path) -> None:
    file = write_json(workplace / "texts.json", TEXTS)
    made = make(workplace, AXOLOTL, datasets=[{"path": str(file), "type": "completion", "field": "body"}])
    assert made.spec.data.columns.named() == {"text": "body"}
    assert asked(made, workplace) == [("", text["body"]) for text in TEXTS]
    assert "texts longer than max_tokens are left out, not cut into pieces" in made.new.text
    entry = {"path": "org/web", "name": "en", "text_column": "body"}
    made = make(workplace, AXOLOTL, datasets=..., pretraining_dataset=[entry])
    assert (made.spec.data.source, made.spec.data.config) == ("org/web", "en")
    assert made.spec.data.columns.named() == {"text": "body"}
    both = [{"path": str(file), "type": "completion"}, {"path": "org/faq", "type": "alpaca"}]
    made = make(workplace, AXOLOTL, datasets=both)
    assert "plain text does not go with questions and answers" in made.told
    assert made.spec.data.source == "org/faq"


@pytest.mark.parametrize("name", ["texts.json", "texts.txt"])
def test_pretraining_of_llamafactory(workplace: Path, name: str) -> None:
    column = "body" if name.endswith(".json") else "text"
    llamafactory_data(workplace, {"web": {"file_name": name, "columns": {"prompt": column}}})
    write_json(workplace / "data" / "texts.json", TEXTS)
    (workplace / "data" / "texts.txt").write_text("\n".join(text["body"] for text in TEXTS))
    made = make(workplace, LLAMAFACTORY, stage="pt", dataset="web")
    if name.endswith(".json"):
        assert asked(made, workplace) == [("", text["body"]) for text in TEXTS]
    else:
        assert made.spec.data.columns.named() == {"text": "text"}
        assert rewritten(made, workplace) == [{"text": text["body"]} for text in TEXTS]
    unknown = make(workplace, LLAMAFACTORY, stage="pt", dataset="web", dataset_dir="nowhere")
    assert unknown.spec.data.columns.named() == {"text": "text"}


FROM_VALUE: list[dict[str, Any]] = [
    {"type": "chat_template", "field_messages": "conversations",
     "message_property_mappings": {"role": "from", "content": "value"}},
    {"type": "chat_template", "field_messages": "conversations",
     "message_field_role": "from", "message_field_content": "value"},
    {"type": "sharegpt"},
]  # fmt: skip


@pytest.mark.parametrize("entry", FROM_VALUE, ids=["mappings", "fields", "sharegpt"])
def test_from_and_value_become_role_and_content(workplace: Path, entry: dict[str, Any]) -> None:
    file = write_json(workplace / "turns.json", TURNS)
    rows = rewritten(make(workplace, AXOLOTL, datasets=[{"path": str(file), **entry}]), workplace)
    hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert rows == [{"messages": hello}]


def test_a_part_of_a_split_needs_the_script(workplace: Path) -> None:
    made = make(workplace, AXOLOTL, datasets=[{"path": "org/chats", "type": "chat_template", "split": "train[:5%]"}])
    assert made.new.script is not None
    assert "'split': 'train[:5%]'" in made.new.script
    assert made.spec.data.source == "mine_data.jsonl"


def test_roles_of_ones_own_need_the_script(workplace: Path) -> None:
    entry = {"path": "org/chats", "type": "chat_template", "roles": {"assistant": ["bot"]}}
    assert "'bot': 'assistant'" in (make(workplace, AXOLOTL, datasets=[entry]).new.script or "")


@pytest.mark.parametrize("kind", ["input_output", "jeopardy", None])
def test_rows_of_an_unknown_type_are_to_be_named(workplace: Path, kind: str | None) -> None:
    made = make(workplace, AXOLOTL, datasets=[{"path": "org/odd", "type": kind}])
    assert "hpsearch does not know how rows of org/odd look" in made.to_do
    assert "# to be filled in, see above" in made.new.text
    assert made.spec.data.source == "org/odd"


def test_a_processor_makes_a_vision_study(workplace: Path) -> None:
    targets = r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|q)_proj"
    made = make(workplace, AXOLOTL, processor_type="AutoProcessor", lora_target_linear=..., lora_target_modules=targets)
    assert (made.spec.task, made.spec.lora.vision) == ("vlm-sft", False)
    assert made.spec.data.columns.named() == {"image": "image", "messages": "messages"}


def test_data_files_that_are_not_there_are_reported(workplace: Path) -> None:
    made = make(workplace, AXOLOTL, datasets=[{"path": "./gone.jsonl", "type": "chat_template"}])
    assert "there is no ./gone.jsonl here" in made.to_do


@pytest.mark.parametrize(
    ("with_input", "without_input", "makes"),
    [
        ("{instruction} [CONTEXT] {input}", "{instruction}", "{q}[ [[CONTEXT]] {i}]"),
        ("{instruction}[CONTEXT]{input}", "{instruction}", None),
        ("{instruction}if so:{input}", "{instruction}", None),
    ],
)
def test_a_prompt_that_no_template_says_is_left_to_the_script(
    with_input: str, without_input: str, makes: str | None
) -> None:
    assert merged(with_input, without_input, {"instruction": "q", "input": "i", "system": ""}) == makes
    assert (joined(("q", "i"), "\n"), joined(("q", "i"), "[")) == ("{q}[\n{i}]", None)
