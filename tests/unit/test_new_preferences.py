"""`hpsearch new --from`: files of DPO, IPO, ORPO and KTO, and the rows that they learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hpsearch.data.prepared import DataFolder, read_data
from hpsearch.errors import InputError
from tests.unit.new_fixtures import AXOLOTL, LLAMAFACTORY, Made, make
from tests.unit.test_new import V1
from tests.unit.test_new_rows import rewritten, write_json

pytestmark = pytest.mark.usefixtures("own_cache")

ASKED = {"role": "user", "content": "Hi?"}


def said(text: str, role: str = "role", content: str = "content", who: str = "assistant") -> dict[str, str]:
    return {role: who, content: text}


def read(made: Made, folder: Path) -> list[tuple[str, str]]:
    """(question, better or only answer) of each row, as hpsearch reads the study's data."""
    found, _ = read_data(made.spec.data, folder, DataFolder(folder / "storage"), lambda *_: None)
    assert not found.left_out
    return [(row.messages[-2]["content"], row.messages[-1]["content"]) for row in found.rows]


@pytest.mark.parametrize(
    ("changes", "preference"),
    [
        ({"rl": "dpo"}, {"loss": "sigmoid", "beta": 0.1}),
        ({"rl": "ipo", "rl_beta": 0.2}, {"loss": "ipo", "beta": 0.2}),
        ({"rl": "orpo", "orpo_alpha": 0.3}, {"loss": "orpo", "beta": 0.3}),
        ({"rl": "dpo", "trl": {"beta": 0.4}, "dpo_label_smoothing": 0.05},
         {"loss": "sigmoid", "beta": 0.4, "label_smoothing": 0.05}),
        ({"rl": "kto", "kto_desirable_weight": 0.2}, {"loss": "kto", "beta": 0.1, "desirable_weight": 0.2}),
    ],
)  # fmt: skip
def test_methods_of_axolotl(workplace: Path, changes: dict[str, Any], preference: dict[str, Any]) -> None:
    made = make(workplace, AXOLOTL, datasets=[{"path": "org/likes", "type": "chatml.intel"}], **changes)
    assert made.spec.task == "text-preference"
    assert made.spec.preference.model_dump(exclude_defaults=True) | preference == made.spec.preference.model_dump(
        include=preference.keys()
    )
    assert made.spec.lora.dropout == 0
    assert "dropout: 0.05: preferences are learned without dropout" in made.told
    assert made.spec.search is not None
    assert "lora.dropout" not in made.spec.search.space


INTEL = {"question": "Hi?", "chosen": "Hello", "rejected": "No"}
WHOLE = {"chosen": [ASKED, said("Hello")], "rejected": [ASKED, said("No")]}


@pytest.mark.parametrize(
    ("method", "kind", "row"),
    [
        ("dpo", "chatml.intel", INTEL),
        ("dpo", "llama3.icr", {"input": "Hi?", "chosen": "Hello", "rejected": "No"}),
        ("dpo", "chatml.argilla", {"instruction": "Hi?", "chosen_response": "Hello", "rejected_response": "No"}),
        ("dpo", "chatml.ultra", {"prompt": "Hi?", **WHOLE}),
        ("dpo", "llama3.argilla_chat", WHOLE),
        ("orpo", "chat_template.argilla", WHOLE),
        ("kto", "llama3.ultra", {"prompt": "Hi?", "completion": "Hello", "label": True}),
        ("kto", "chatml.argilla_chat", {"completion": [ASKED, said("Hello")], "label": False}),
    ],
)
@pytest.mark.parametrize("in_script", [False, True])
def test_rows_of_axolotl(workplace: Path, method: str, kind: str, row: dict[str, Any], in_script: bool) -> None:
    file = write_json(workplace / "likes.json", [row])
    split = {"split": "train[:100%]"} if in_script else {}
    made = make(workplace, AXOLOTL, rl=method, datasets=[{"path": str(file), "type": kind, **split}])
    assert (made.new.script is not None) is in_script
    if in_script:
        assert len(rewritten(made, workplace)) == 1
    assert read(made, workplace) == [("Hi?", "Hello")]


def test_a_turn_for_each_answer_needs_the_script(workplace: Path) -> None:
    row = {"conversation": [said("Be kind.", who="system"), ASKED], "chosen": said("Hello"), "rejected": said("No")}
    file = write_json(workplace / "likes.json", [row, row | {"rejected": said("")}])
    entry = {"path": str(file), "type": "chat_template.default", "field_messages": "conversation"}
    made = make(workplace, AXOLOTL, rl="dpo", datasets=[entry])
    assert rewritten(made, workplace) == [
        {"question": [said("Be kind.", who="system"), ASKED], "chosen": "Hello", "rejected": "No"}
    ]
    assert made.spec.data.columns.named() == {"question": "question", "chosen": "chosen", "rejected": "rejected"}
    assert read(made, workplace) == [("Hi?", "Hello")]


def llamafactory(folder: Path, entry: dict[str, Any], rows: list[dict[str, Any]], **changes: Any) -> Made:
    write_json(folder / "data" / "dataset_info.json", {"likes": {"file_name": "likes.json", **entry}})
    write_json(folder / "data" / "likes.json", rows)
    return make(folder, LLAMAFACTORY, dataset="likes", **changes)


def test_pairs_of_llamafactory(workplace: Path) -> None:
    entry = {"ranking": True, "columns": {"prompt": "ask", "query": "more", "chosen": "good", "rejected": "bad"}}
    rows = [{"ask": "Hi?", "more": "You!", "good": "Hello", "bad": "No"}, {"ask": "Hi?", "good": "Yes", "bad": "No"}]
    made = llamafactory(workplace, entry, rows, stage="dpo", pref_beta=0.2, pref_loss="ipo")
    assert (made.spec.preference.loss, made.spec.preference.beta) == ("ipo", 0.2)
    assert made.spec.data.prompt == "{ask}[\n{more}]"
    assert read(made, workplace) == [("Hi?\nYou!", "Hello"), ("Hi?", "Yes")]
    other = llamafactory(workplace, entry, rows, stage="dpo", pref_loss="simpo", pref_ftx=1.0)
    assert other.spec.preference.loss == "sigmoid"
    assert "hpsearch does not have this loss" in other.told
    assert "pref_ftx: 1.0" in other.told


def test_conversations_of_llamafactory(workplace: Path) -> None:
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    entry = {"ranking": True, "formatting": "sharegpt", "columns": columns}
    answers = {name: said(text, "from", "value", "gpt") for name, text in (("chosen", "Hello"), ("rejected", "No"))}
    row = {"conversations": [said("Hi?", "from", "value", "human")], **answers}
    made = llamafactory(workplace, entry, [row], stage="dpo")
    assert rewritten(made, workplace) == [{"question": [ASKED], "chosen": "Hello", "rejected": "No"}]
    assert read(made, workplace) == [("Hi?", "Hello")]
    Image.new("RGB", (8, 8)).save(workplace / "data" / "a.png")
    seen = llamafactory(
        workplace, entry | {"columns": columns | {"images": "images"}}, [row | {"images": ["a.png"]}], stage="dpo"
    )
    assert seen.spec.task == "vlm-preference"
    (found,) = rewritten(seen, workplace)
    assert found == {
        "image": [str(workplace / "data" / "a.png")],
        "question": [ASKED],
        "chosen": "Hello",
        "rejected": "No",
    }
    assert read(seen, workplace) == [("Hi?", "Hello")]


def test_desirable_answers_of_llamafactory(workplace: Path) -> None:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"}, "tags": tags}
    rows = [{"messages": [ASKED, said("Hello")], "label": True}, {"messages": [ASKED, said("No")], "label": False}]
    made = llamafactory(workplace, entry, rows, stage="kto", kto_chosen_weight=0.5)
    assert (made.spec.preference.loss, made.spec.preference.desirable_weight) == ("kto", 0.5)
    assert [row["desirable"] for row in rewritten(made, workplace)] == [True, False]
    assert read(made, workplace) == [("Hi?", "Hello"), ("Hi?", "No")]
    words = [row | {"label": str(row["label"]).lower()} for row in rows]
    made = llamafactory(workplace, entry, words, stage="kto")
    rewritten(made, workplace)
    found, _ = read_data(made.spec.data, workplace, DataFolder(workplace / "storage"), lambda *_: None)
    assert [row.desirable for row in found.rows] == [True, False]
    columns = {"prompt": "ask", "response": "say", "kto_tag": "label"}
    flat = [{"ask": "Hi?", "say": "Hello", "label": True}]
    made = llamafactory(workplace, {"columns": columns}, flat, stage="kto")
    assert made.new.script is None
    assert read(made, workplace) == [("Hi?", "Hello")]


def test_pairs_of_the_second_llamafactory(workplace: Path) -> None:
    file = write_json(workplace / "likes.json", [WHOLE])
    listed = {"likes": {"path": str(file), "source": "local", "converter": "pair"}}
    write_json(workplace / "sets.yaml", listed)
    made = make(workplace, V1, train_dataset="sets.yaml", pref_beta=0.3)
    assert (made.spec.task, made.spec.preference.beta) == ("text-preference", 0.3)
    assert read(made, workplace) == [("Hi?", "Hello")]


def test_unknown_rows_are_to_be_named(workplace: Path) -> None:
    made = make(workplace, AXOLOTL, rl="kto", datasets=[{"path": "org/odd", "type": "passthrough.default"}])
    assert made.spec.data.columns.named() == {"question": "question", "answer": "answer", "desirable": "desirable"}
    assert "org/odd" in made.to_do
    made = make(workplace, LLAMAFACTORY, stage="dpo")
    assert made.spec.data.columns.named() == {"question": "question", "chosen": "chosen", "rejected": "rejected"}


@pytest.mark.parametrize(("stage", "entry"), [("sft", {"ranking": True}), ("kto", {}), ("dpo", {})])
def test_rows_for_another_stage_are_refused(workplace: Path, stage: str, entry: dict[str, Any]) -> None:
    words = "holds pairs" if stage == "sft" else "holds no preferences of this kind"
    with pytest.raises(InputError, match=words):
        llamafactory(workplace, entry, [INTEL], stage=stage)
