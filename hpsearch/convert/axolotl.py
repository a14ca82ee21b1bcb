"""A training file of Axolotl (https://github.com/axolotl-ai-cloud/axolotl, keys in src/axolotl/utils/schemas)."""

from __future__ import annotations

import re
from typing import Any

from hpsearch.convert import settings
from hpsearch.convert.axolotl_data import put_parts
from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile
from hpsearch.convert.preferences import METHODS, put_axolotl

TOOL = "Axolotl"

NO_SFT = {
    "reward_model": "trains a reward model",
    "process_reward_model": "trains a process reward model",
    "diffusion": "trains a diffusion language model",
    "num_labels": "trains a classifier head",
}
"""Keys of files that are no supervised fine-tuning."""


def is_mine(values: dict[str, Any]) -> bool:
    return "base_model" in values


def read(file: ForeignFile) -> Draft:
    _refuse_what_is_no_sft(file)
    draft = Draft(file, TOOL)
    _put_model(draft)
    _put_lora_or_full(draft)
    _put_training(draft)
    draft.has_images = bool(file.text("processor_type"))
    if method := str(file.take("rl", "")).lower():
        put_axolotl(draft, method)
    put_parts(draft, method)
    _put_vision(draft)
    return draft


def _refuse_what_is_no_sft(file: ForeignFile) -> None:
    if (method := file.take("rl")) and str(method).lower() not in METHODS:
        file.refuse(f"is reinforcement learning, or a loss that hpsearch does not have (rl: {method})")
    for key, what in NO_SFT.items():
        if file.take(key):
            file.refuse(f"{what} ({key}); hpsearch learns from answers and preferences")
    if "SequenceClassification" in str(file.values.get("model_type")):
        file.refuse("trains a classifier head (model_type); hpsearch learns from answers and preferences")
    if "voxtral" in str(file.values.get("processor_type")).lower():
        file.refuse("trains on sound (processor_type: VoxtralProcessor); hpsearch has texts and images")
    if not file.text("base_model"):
        file.refuse("base_model is empty: name the model to train")
    if not file.take("datasets") and not file.take("pretraining_dataset"):
        file.refuse("names no data to train on (datasets). Give the training file")


def _put_model(draft: Draft) -> None:
    file = draft.file
    settings.put_base(draft, str(file.text("base_model")))
    if revision := file.text("revision_of_model"):
        draft.set("model.revision", revision)
    bits = 4 if file.flag("load_in_4bit") else 8 if file.flag("load_in_8bit") else 0
    settings.put_quantization(draft, bits, "load_in_8bit")
    if file.flag("gptq"):
        draft.to_do.append("model.base: the file trains on GPTQ weights; name the model in 16 bit")
    if file.flag("fp16") or file.flag("float16"):
        draft.set("model.dtype", "float16")
    for quiet in ("bf16", "bfloat16"):  # hpsearch's own choice, where the hardware has it
        file.take(quiet)
    old = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}
    named = [kind for key, kind in old.items() if file.flag(key)]
    given = str(file.take("attn_implementation", named[0] if named else "sdpa"))
    settings.put_attention(draft, "attn_implementation", given)
    settings.put_trust(draft)


def _put_lora_or_full(draft: Draft) -> None:
    file = draft.file
    adapter = str(file.take("adapter", "") or "").lower()
    _refuse_rate_without_number(file)
    rate = file.number("learning_rate", 2e-4)
    if not adapter:
        for unused in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear"):
            file.take(unused)
        what = "trains all weights (no adapter)"
        settings.put_full_as_qlora(draft, "adapter", what)
    else:
        _put_lora(draft)
    if adapter not in ("", "lora", "qlora"):
        draft.drop("adapter", "hpsearch trains LoRA adapters only")
    settings.put_learning_rate(draft, rate, is_full=not adapter)
    settings.put_adapter(draft, "lora_model_dir")


def _refuse_rate_without_number(file: ForeignFile) -> None:
    if file.take("learning_rate") is None:
        file.refuse("learning_rate is missing; Axolotl itself has no default for it")


def _put_lora(draft: Draft) -> None:
    file = draft.file
    default = None if file.take("lora_alpha") is not None else "peft's default, as the file gives none"
    r, alpha = file.whole("lora_r", 8), file.whole("lora_alpha", 8)
    settings.put_lora(draft, r, alpha, file.number("lora_dropout", 0.0), alpha_is_default=default)
    targets = file.take("lora_target_modules", [])
    names = [str(name) for name in targets] if isinstance(targets, list) else [str(targets)]
    if file.flag("lora_target_linear") or names in ([], ["all-linear"], ["all"]):
        draft.set("lora.target_modules", "all-linear")
    else:
        settings.put_targets(draft, "lora_target_modules", names)
    if file.flag("peft_use_rslora"):
        draft.set("lora.rslora", True)


def _put_training(draft: Draft) -> None:
    file = draft.file
    max_steps = file.whole("max_steps", 0)
    batch = file.whole("micro_batch_size", 1)
    whole = file.whole("batch_size", batch)
    settings.put_batch(draft, batch, file.whole("gradient_accumulation_steps", max(1, whole // max(batch, 1))))
    file.take("eval_batch_size")
    settings.put_optimizer(draft, "optimizer", "adamw_torch_fused")
    settings.put_scheduler(draft, "lr_scheduler", "cosine")
    settings.put_warmup(draft, max_steps, 0.03)
    draft.set("training.weight_decay", file.number("weight_decay", 0.0))
    draft.set("training.max_grad_norm", file.number("max_grad_norm", 1.0))
    file.take("gradient_checkpointing")
    draft.set("training.seed", file.whole("seed", 42))
    settings.put_duration(draft, file.number("num_epochs", 1.0), max_steps)
    draft.set("data.max_tokens", file.whole("sequence_len", 512), "longer rows are left out, not cut")
    if system := file.text("default_system_message"):
        draft.set("data.system_prompt", system)


def _put_vision(draft: Draft) -> None:
    """In Axolotl, layer paths decide whether the vision encoder is trained."""
    file = draft.file
    size = file.take("image_size")
    if not draft.has_images:
        return
    if isinstance(size, int | list):
        draft.set("data.image_size", size)
    targets = str(file.values.get("lora_target_modules"))
    if re.search(r"visual|vision_(model|tower|encoder|adapter)|vit", targets):
        draft.set("lora.vision", True)
