"""`hpsearch new --from`: what of a LLaMA-Factory or Axolotl file becomes of the study, and what is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpsearch.errors import InputError
from hpsearch.spec.search import RangeSpec
from tests.unit.new_fixtures import AXOLOTL, LLAMAFACTORY, make, make_from, write

V1: dict[str, Any] = {
    "model": "org/model-1b",
    "model_class": "llm",
    "peft_config": {"name": "lora", "r": 4, "lora_dropout": 0.1, "target_modules": "all", "modules_to_save": ["x"]},
    "quant_config": {"name": "bnb", "quantization_bit": 4},
    "train_dataset": "org/chats",
    "micro_batch_size": 2,
    "global_batch_size": 16,
    "cutoff_len": 300,
    "learning_rate": "1e-4",
    "max_steps": 50,
}


def test_settings_of_llamafactory_are_kept(workplace: Path) -> None:
    spec = make(workplace, LLAMAFACTORY, lora_dropout=0.2, lora_alpha=24, seed=7, weight_decay=0.01).spec
    assert (spec.study, spec.task, spec.model.base) == ("mine", "text-sft", "org/model-1b")
    assert (spec.lora.r, spec.lora.alpha, spec.lora.dropout) == (8, 24, 0.2)
    assert (spec.lora.target_modules, spec.lora.vision) == ("all-linear", False)
    assert (spec.training.learning_rate, spec.training.batch_size) == (1e-4, 16)
    assert spec.training.lr_scheduler == "cosine"
    assert (spec.training.warmup_ratio, spec.training.weight_decay, spec.training.seed) == (0.1, 0.01, 7)
    assert (spec.data.max_tokens, spec.final.epochs) == (700, 3.0)


def test_settings_of_axolotl_are_kept(workplace: Path) -> None:
    spec = make(workplace, AXOLOTL, seed=7, max_steps=90, eval_batch_size=3).spec
    assert (spec.model.quantization, spec.model.base) == ("nf4", "org/model-1b")
    assert (spec.lora.r, spec.lora.alpha, spec.lora.dropout) == (32, 16, 0.05)
    assert spec.lora.target_modules == "all-linear"
    assert (spec.training.optimizer, spec.training.learning_rate) == ("adamw_8bit", 2e-4)
    assert (spec.training.batch_size, spec.training.micro_batch, spec.training.seed) == (8, "auto", 7)
    assert (spec.data.max_tokens, spec.final.epochs, spec.final.max_steps) == (900, 2.0, 90)
    assert spec.data.source == "org/chats"
    assert spec.data.columns.named() == {"messages": "messages"}
    assert spec.data.split.model_dump() == {
        "column": "split", "train": "train", "validation": 0.05, "test": 0.05, "seed": 0,
    }  # fmt: skip


def test_settings_of_llamafactory_v1_are_kept(workplace: Path) -> None:
    made = make(workplace, V1)
    spec = made.spec
    assert made.new.tool == "LLaMA-Factory v1"
    assert (spec.model.quantization, spec.lora.r, spec.lora.alpha, spec.lora.dropout) == ("nf4", 4, 16, 0.1)
    assert spec.training.batch_size == 16
    assert (spec.training.learning_rate, spec.final.max_steps, spec.data.max_tokens) == (1e-4, 50, 300)
    assert "peft_config.modules_to_save" in made.told


@pytest.mark.parametrize("written", ["2e-5", "2.0e-5", "0.00002"])
@pytest.mark.parametrize("values", [LLAMAFACTORY, AXOLOTL], ids=["llamafactory", "axolotl"])
def test_a_learning_rate_is_a_number_however_it_is_written(workplace: Path, values: Any, written: str) -> None:
    file = write(workplace, values, learning_rate="RATE")
    file.write_text(file.read_text().replace("RATE", written))
    spec = make_from(file).spec
    assert spec.training.learning_rate == 2e-5
    space = spec.searched.space["training.learning_rate"]
    assert isinstance(space, RangeSpec)
    assert (space.low, space.high, space.log) == (4e-6, 1e-4, True)


def test_missing_lora_settings_are_each_tools_own_defaults(workplace: Path) -> None:
    made = make(workplace, LLAMAFACTORY, lora_rank=..., learning_rate=...)
    assert (made.spec.lora.r, made.spec.lora.alpha, made.spec.lora.dropout) == (8, 16, 0.0)
    assert "alpha: 16  # LLaMA-Factory's default: twice lora_rank" in made.new.text
    assert made.spec.training.learning_rate == 5e-5
    made = make(workplace, LLAMAFACTORY, lora_rank=64)
    assert made.spec.lora.alpha == 128
    made = make(workplace, AXOLOTL, lora_r=..., lora_alpha=..., lora_dropout=...)
    assert (made.spec.lora.r, made.spec.lora.alpha, made.spec.lora.dropout) == (8, 8, 0.0)
    assert "alpha: 8  # peft's default" in made.new.text


@pytest.mark.parametrize(
    ("values", "changes", "quantization"),
    [
        (LLAMAFACTORY, {}, "none"),
        (LLAMAFACTORY, {"quantization_bit": 4}, "nf4"),
        (LLAMAFACTORY, {"quantization_bit": 8}, "nf4"),
        (AXOLOTL, {"load_in_4bit": False, "adapter": "lora"}, "none"),
        (AXOLOTL, {"load_in_4bit": False, "load_in_8bit": True, "adapter": "lora"}, "nf4"),
    ],
)
def test_quantization(workplace: Path, values: Any, changes: dict[str, Any], quantization: str) -> None:
    made = make(workplace, values, **changes)
    assert made.spec.model.quantization == quantization
    between = changes.get("quantization_bit") == 8 or changes.get("load_in_8bit", False)
    assert ("hpsearch has nf4 (4 bit) or no quantization; nf4 instead" in made.told) is between


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (["self_attn.q_proj", "mlp.up_proj"], ["q_proj", "up_proj"]),
        (r"model.layers.[\d]+.(mlp|self_attn).(up|down|q)_proj", ["up_proj", "down_proj", "q_proj"]),
        (r"model.layers.[\d]+.(mlp|self_attn).*", "all-linear"),
    ],
)
def test_target_modules_of_axolotl(workplace: Path, given: Any, kept: Any) -> None:
    made = make(workplace, AXOLOTL, lora_target_linear=False, lora_target_modules=given)
    assert made.spec.lora.target_modules == kept
    assert ("lora_target_modules" in made.told) is (given != kept)


def test_target_modules_of_llamafactory_may_have_commas(workplace: Path) -> None:
    made = make(workplace, LLAMAFACTORY, lora_target="q_proj, v_proj")
    assert made.spec.lora.target_modules == ["q_proj", "v_proj"]


def test_what_is_not_kept_is_named_with_its_reason(workplace: Path) -> None:
    made = make(workplace, AXOLOTL, optimizer="muon", lr_scheduler="rex", frobnicate=3, max_grad_nrom=0.5, fsdp=["x"])
    assert "optimizer: muon: hpsearch does not have this optimizer; adamw_torch instead" in made.told
    assert "lr_scheduler: rex: hpsearch does not have this schedule; cosine instead" in made.told
    assert "frobnicate: hpsearch has no setting for it" in made.told
    assert "max_grad_nrom: hpsearch knows no such key; did you mean max_grad_norm?" in made.told
    assert "sample_packing: rows are not packed together" in made.told
    assert "fsdp: a trial runs on one GPU" in made.told
    assert "wandb_project" not in made.told  # it has no value
    head = made.new.text.partition("study:")[0]
    for point in made.new.not_kept:
        assert point.partition(":")[0] in head


@pytest.mark.parametrize(
    ("changes", "ratio", "is_told"),
    [
        ({"warmup_ratio": 0.2}, 0.2, False),
        ({"warmup_steps": 0.1}, 0.1, False),
        ({"warmup_steps": 10, "max_steps": 100}, 0.1, False),
        ({"warmup_steps": 10}, 0.03, True),
    ],
)
def test_warmup_is_a_share_of_the_steps(workplace: Path, changes: Any, ratio: float, is_told: bool) -> None:
    made = make(workplace, AXOLOTL, **changes)
    assert made.spec.training.warmup_ratio == ratio
    assert ("warmup_steps: 10" in made.told) is is_told


def test_the_space_lies_around_the_values(workplace: Path) -> None:
    made = make(workplace, AXOLOTL, lora_dropout=0.2)
    space = made.spec.searched.space
    for knob, value in made.spec.defaults().items():
        parameter = space[knob]
        inside = parameter.low <= value <= parameter.high if isinstance(parameter, RangeSpec) else value in parameter
        assert inside, knob
    assert space["lora.r"] == [16, 32, 64]
    assert space["lora.alpha"] == [8, 16, 32]
    assert len(space) == 5
    body = made.new.text.partition("space:\n")[2].splitlines()
    assert all(line.startswith("    #") for line in body[::2])
    assert len(body) == 10


@pytest.mark.parametrize("kind", ["full", "freeze"])
def test_full_fine_tuning_becomes_qlora_and_says_so(workplace: Path, kind: str) -> None:
    made = make(workplace, LLAMAFACTORY, finetuning_type=kind, learning_rate=1e-5)
    assert (made.spec.model.quantization, made.spec.training.learning_rate) == ("nf4", 1e-4)
    assert f"finetuning_type: {kind}: the file trains" in made.told
    assert "learning_rate: 1e-05: it was for all weights" in made.told
    made = make(workplace, AXOLOTL, adapter=None, load_in_4bit=False, learning_rate=1e-5)
    assert (made.spec.model.quantization, made.spec.training.learning_rate) == ("nf4", 1e-4)
    assert "adapter: the file trains all weights (no adapter)" in made.told


def test_a_quantized_base_is_reported_clearly(workplace: Path) -> None:
    made = make(workplace, LLAMAFACTORY, model_name_or_path="org/model-1b-GPTQ")
    assert "looks quantized already" in made.to_do
    assert made.new.text.index("TO DO BEFORE THIS RUNS") < made.new.text.index("Not kept from")


@pytest.mark.parametrize("stage", ["ppo", "rm", "xyz"])
def test_other_stages_are_refused_in_words(workplace: Path, stage: str) -> None:
    with pytest.raises(InputError, match=rf"their.yaml: .*stage: {stage}.*hpsearch"):
        make(workplace, LLAMAFACTORY, stage=stage)


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        (AXOLOTL, {"rl": "grpo"}, r"reinforcement learning, or a loss that hpsearch does not have \(rl: grpo\)"),
        (AXOLOTL, {"reward_model": True}, "trains a reward model"),
        (AXOLOTL, {"datasets": [{"path": "x", "type": "chatml.ultra"}]}, "preferences"),
        (AXOLOTL, {"datasets": ...}, "names no data"),
        (AXOLOTL, {"datasets": [{"type": "alpaca"}]}, "each with a path"),
        (AXOLOTL, {"datasets": [{"path": "x", "type": "chat_template", "roles": 3}]}, "roles: expected a mapping"),
        (AXOLOTL, {"learning_rate": ...}, "learning_rate is missing"),
        (AXOLOTL, {"learning_rate": "fast"}, "learning_rate: expected a number, found 'fast'"),
        (AXOLOTL, {"lora_r": 0}, "must be at least 1"),
        (AXOLOTL, {"lora_r": 8.5}, "lora_r: expected a whole number"),
        (AXOLOTL, {"micro_batch_size": -1}, "training.batch_size: must be at least 1, not -4"),
        (AXOLOTL, {"processor_type": "VoxtralProcessor"}, "sound"),
        (LLAMAFACTORY, {"dataset": ..., "stage": ...}, "is for inference"),
        (LLAMAFACTORY, {"export_dir": "x"}, "merges or exports"),
        (LLAMAFACTORY, {"do_train": False}, "predicts"),
        (V1, {"peft_config": {"name": "lora", "export_dir": "x"}}, "merges or exports"),
        ({"compute_environment": "LOCAL", "num_processes": 2}, {}, "accelerate"),
        ({"study": "x", "search": {}}, {}, "is a study file already"),
        ({"model_name_or_path": "org/x", "dataset_mixer": {"a": 1}}, {}, "is neither a LLaMA-Factory .* found: model_"),
        ({"gpu": "h100"}, {}, "nor an Axolotl file .* found: gpu"),
    ],
)  # fmt: skip
def test_what_no_study_fits_is_refused_in_words(workplace: Path, values: Any, changes: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(workplace, values, **changes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "line 1:"),
        (b"- a\n- b", "holds a list; expected keys and values"),
        (b"# nothing\n", "is empty; expected keys and values"),
        (b"\xff\xfe\x00", "line 1: is no text in UTF-8: byte 0 is 0xff"),
    ],
)
def test_a_file_that_is_no_yaml_of_keys_is_reported(workplace: Path, content: bytes, words: str) -> None:
    (workplace / "their.yaml").write_bytes(content)
    with pytest.raises(InputError, match=words):
        make_from(workplace / "their.yaml")


def test_values_with_line_breaks_and_colons_stay_values(workplace: Path) -> None:
    system = "Be brief: say yes or no # always\nAnd «kind»."
    made = make(workplace, AXOLOTL, default_system_message=system, base_model="./models/a b", optimizer="x\nseed: 3")
    assert made.spec.data.system_prompt == system
    assert made.spec.model.base == "./models/a b"
    assert made.spec.training.seed == 42


@pytest.mark.parametrize(("values", "key"), [(LLAMAFACTORY, "adapter_name_or_path"), (AXOLOTL, "lora_model_dir")])
def test_an_adapter_to_go_on_from_is_kept_with_its_own_values(workplace: Path, values: Any, key: str) -> None:
    made = make(workplace, values, **{key: "saves/first"})
    assert made.spec.model.adapter == "saves/first"
    assert made.spec.lora.model_fields_set == {"dropout"}
    assert set(made.spec.searched.space) == {"training.learning_rate", "lora.dropout", "training.batch_size"}
    assert f"{key}: saves/first counts from this study file's folder" in " ".join(
        made.new.text.replace("#", "").split()
    )


@pytest.mark.parametrize(
    "changes", [{"adapter_name_or_path": "a,b"}, {"adapter_name_or_path": "a", "create_new_adapter": True}]
)
def test_an_adapter_that_is_merged_first_is_reported(workplace: Path, changes: Any) -> None:
    made = make(workplace, LLAMAFACTORY, **changes)
    assert made.spec.model.adapter is None
    assert made.spec.lora.r == 8
    assert "merge it, and name the result as model.base" in " ".join(made.new.text.replace("#", "").split())
