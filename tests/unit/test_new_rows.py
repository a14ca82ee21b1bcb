"""`hpsearch new --from`: how the data sets of both tools are found, and the script that rewrites their rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hpsearch.convert.axolotl_data import _ALPACA
from hpsearch.convert.prompts import joined, merged
from hpsearch.data.prepared import DataFolder, read_data
from hpsearch.data.source import open_source
from hpsearch.errors import InputError
from tests.unit.new_fixtures import AXOLOTL, LLAMAFACTORY, Made, make

pytestmark = pytest.mark.usefixtures("own_cache")

PAIRS = [
    {"instruction": "Add", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet", "input": "", "output": "Hello"},
    {"instruction": "Say nothing", "input": "", "output": ""},
]
TURNS = [
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Hi"}]},
    {"conversations": [{"from": "observation", "value": "x"}, {"from": "gpt", "value": "y"}]},
]


def rewritten(made: Made, folder: Path) -> list[dict[str, Any]]:
    """The rows that the study's script writes."""
    file = folder / made.new.script_name
    spec = importlib.util.spec_from_file_location("rewriting", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    assert len(open_source(made.spec.data, folder).rows) > 0  # hpsearch reads what was written
    return [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def llamafactory_data(folder: Path, info: dict[str, Any]) -> None:
    write_json(folder / "data" / "dataset_info.json", info)
    write_json(folder / "data" / "pairs.json", PAIRS)
    write_json(folder / "data" / "turns.json", TURNS)


def test_names_without_a_dataset_info_are_to_be_filled_in(workplace: Path) -> None:
    made = make(workplace, LLAMAFACTORY)
    assert "faq are names in LLaMA-Factory's data/dataset_info.json" in made.to_do
    assert made.spec.data.source == "FILL_IN.jsonl"
    assert made.new.text.index("TO DO BEFORE THIS RUNS") < made.new.text.index("FILL_IN")


def test_a_name_that_dataset_info_lacks_is_to_be_filled_in(workplace: Path) -> None:
    llamafactory_data(workplace, {})
    assert "has no data set faq" in make(workplace, LLAMAFACTORY).to_do


def asked(made: Made, folder: Path) -> list[tuple[str, str]]:
    """What the study asks and learns, of its data as they are."""
    assert made.new.script is None
    read, _ = read_data(made.spec.data, folder, DataFolder(folder / "storage"), lambda *_: None)
    return [(row.messages[0]["content"], row.messages[1]["content"]) for row in read.rows]


def test_pairs_of_llamafactory_are_asked_over_both_columns(workplace: Path) -> None:
    llamafactory_data(workplace, {"faq": {"file_name": "pairs.json"}})
    made = make(workplace, LLAMAFACTORY)
    assert made.spec.data.prompt == "{instruction}[\n{input}]"
    assert asked(made, workplace) == [("Add\n1 and 2", "3"), ("Greet", "Hello")]
    assert made.to_do == ""


def test_a_system_column_needs_the_script(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
    llamafactory_data(workplace, {"faq": {"file_name": "pairs.json", "columns": columns}})
    made = make(workplace, LLAMAFACTORY)
    assert made.spec.data.columns.named() == {"messages": "messages"}
    assert made.to_do.startswith(f"run `python {workplace / 'mine_data.py'}` once")
    rows = rewritten(made, workplace)
    assert [row["messages"][0]["content"] for row in rows] == ["Add\n1 and 2", "Greet"]
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "3"}
    assert "left out: 1 × no question or no answer" in capsys.readouterr().out


def test_data_sets_are_joined_and_cut_at_max_samples(workplace: Path) -> None:
    info = {"faq": {"file_name": "pairs.json"}, "talk": {"file_name": "turns.json", "formatting": "sharegpt"}}
    llamafactory_data(workplace, info)
    rows = rewritten(make(workplace, LLAMAFACTORY, dataset="faq, talk", max_samples=1), workplace)
    assert [row["messages"][0] for row in rows] == [
        {"role": "user", "content": "Add\n1 and 2"},
        {"role": "user", "content": "Hi"},
    ]


def test_a_question_column_of_its_own_needs_no_script(workplace: Path) -> None:
    columns = {"prompt": "ask", "response": "say"}
    llamafactory_data(workplace, {"faq": {"hf_hub_url": "org/faq", "subset": "en", "columns": columns}})
    made = make(workplace, LLAMAFACTORY, val_size=0.2)
    assert made.new.script is None
    assert (made.spec.data.source, made.spec.data.config) == ("org/faq", "en")
    assert made.spec.data.columns.named() == {"question": "ask", "answer": "say"}
    assert made.spec.data.split.validation == 0.2


@pytest.mark.parametrize("user", ["user", "human"])
def test_messages_are_read_as_they_are_where_the_roles_are_a_chat_templates(workplace: Path, user: str) -> None:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": user, "assistant_tag": "assistant"}
    entry = {"hf_hub_url": "org/chats", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}
    llamafactory_data(workplace, {"faq": entry})
    assert (make(workplace, LLAMAFACTORY).new.script is None) is (user == "user")


def test_preferences_and_videos_are_refused(workplace: Path) -> None:
    video = {"file_name": "turns.json", "formatting": "sharegpt", "columns": {"messages": "m", "videos": "videos"}}
    llamafactory_data(workplace, {"likes": {"file_name": "pairs.json", "ranking": True}, "clips": video})
    with pytest.raises(InputError, match="likes holds pairs"):
        make(workplace, LLAMAFACTORY, dataset="likes")
    with pytest.raises(InputError, match="video or sound alone"):
        make(workplace, LLAMAFACTORY, dataset="clips")


def test_images_make_a_vision_study(workplace: Path) -> None:
    said = [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Ann"}]
    seen = [{"messages": said, "images": ["a.png"]}, {"messages": said, "images": ["a.png", "a.png"]}]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "seen.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    llamafactory_data(workplace, {"seen": entry, "faq": {"file_name": "pairs.json"}})
    write_json(workplace / "data" / "seen.json", seen)
    Image.new("RGB", (8, 8)).save(workplace / "data" / "a.png")
    made = make(workplace, LLAMAFACTORY, dataset="seen,faq", freeze_vision_tower=False, image_max_pixels=262144)
    assert (made.spec.task, made.spec.lora.vision, made.spec.data.image_size) == ("vlm-sft", True, 512)
    assert "its rows have no image" in made.told
    image = str(workplace / "data" / "a.png")
    assert rewritten(made, workplace) == [{"image": [image] * number, "messages": said} for number in (1, 2)]
    read, _ = read_data(made.spec.data, workplace, DataFolder(workplace / "storage"), lambda *_: None)
    assert [len(row.images) for row in read.rows] == [1]
    assert read.left_out == {"more images than placeholders": ["1"]}


def test_all_images_and_all_turns_of_a_conversation_are_kept(workplace: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(workplace / name)
    both = [
        {"type": "image", "path": "a.png"},
        {"type": "text", "text": "Is it like "},
        {"type": "image", "path": "b.png"},
    ]
    talk = [
        {"role": "user", "content": [*both, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "No"}]},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Colours"}]},
    ]
    file = write_json(workplace / "talks.json", [{"messages": talk}, {"messages": talk[2:]}])
    entry = {"path": str(file), "type": "chat_template", "field_messages": "messages"}
    made = make(workplace, AXOLOTL, processor_type="AutoProcessor", datasets=[entry])
    texts = ["<image>Is it like <image>?", "No", "Why?", "Colours"]
    first, second = rewritten(made, workplace)
    assert [turn["content"] for turn in first["messages"]] == texts
    assert [Path(image).name for image in first["image"]] == ["a.png", "b.png"]
    assert (second["image"], len(second["messages"])) == ([], 2)
    read, _ = read_data(made.spec.data, workplace, DataFolder(workplace / "storage"), lambda *_: None)
    assert [(len(row.images), [turn["content"] for turn in row.messages]) for row in read.rows] == [
        (2, texts),
        (0, texts[2:]),
    ]


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


def test_data_files_that_are_not_there_are_told(workplace: Path) -> None:
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
