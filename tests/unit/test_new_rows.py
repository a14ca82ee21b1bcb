"""`hpsearch new --from`: how the data sets of both tools are found, and the script that rewrites their rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


def test_braces_in_a_row_are_text(workplace: Path) -> None:
    rows = [{"instruction": "Explain {input}", "input": "str.format", "output": "Braces"}]
    file = write_json(workplace / "rows.json", rows)
    made = make(
        workplace, AXOLOTL, datasets=[{"path": str(file), "type": "alpaca"}, {"path": str(file), "type": "alpaca"}]
    )
    prompts = [row["prompt"] for row in rewritten(made, workplace)]
    assert len(prompts) == 2
    assert all("Explain {input}" in prompt and prompt.count("str.format") == 1 for prompt in prompts)


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
    lost = [{"role": "user", "content": [{"type": "image", "text": "?"}]}, talk[1]]
    file = write_json(workplace / "talks.json", [{"messages": talk}, {"messages": talk[2:]}, {"messages": lost}])
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


def test_the_address_of_an_image_stays_as_it_is(workplace: Path) -> None:
    asked = [{"type": "image", "path": "https://example.org/a.png"}, {"type": "text", "text": "Who?"}]
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Ann"}]
    file = write_json(workplace / "talks.json", [{"messages": talk}])
    entry = {"path": str(file), "type": "chat_template", "field_messages": "messages"}
    made = make(workplace, AXOLOTL, processor_type="AutoProcessor", datasets=[entry])
    assert rewritten(made, workplace)[0]["image"] == ["https://example.org/a.png"]
