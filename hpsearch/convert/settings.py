"""Both tools' settings in a study's terms: optimizers, schedules, warm-up, layer names, precision, full fine-tuning."""

from __future__ import annotations

import re

from hpsearch.convert.draft import Draft

OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_torch_fused": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "adamw_apex_fused": "adamw_torch",
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "lion_8bit": "lion_8bit",
    "paged_lion_8bit": "paged_lion_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""Other names of the same algorithm."""

NEAREST_OPTIMIZERS = {
    "adamw_torch_8bit": "adamw_8bit",
    "ao_adamw_8bit": "adamw_8bit",
    "adamw_torch_4bit": "adamw_8bit",
    "ao_adamw_4bit": "adamw_8bit",
    "lion_32bit": "lion_8bit",
    "paged_lion_32bit": "paged_lion_8bit",
}
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
ATTENTION = {
    "auto": "sdpa",
    "sdpa": "sdpa",
    "eager": "eager",
    "disabled": "eager",
    "fa2": "flash_attention_2",
    "flash_attention_2": "flash_attention_2",
}
QUANTIZED_NAME = re.compile(r"(?i)gptq|awq|aqlm|bnb|nf4|nvfp4|mxfp4|(?<![a-z0-9])(int|fp)[48](?![a-z0-9])|[48]bit")
FULL_TO_LORA = 10
"""A good LoRA learning rate is about ten times that of full fine-tuning (https://thinkingmachines.ai/blog/lora/)."""


def put_optimizer(draft: Draft, key: str, default: str) -> None:
    name = str(draft.file.take(key, default)).lower()
    kind = OPTIMIZERS.get(name)
    if kind is None:
        kind = NEAREST_OPTIMIZERS.get(name, "adamw_torch")
        draft.drop(key, f"hpsearch does not have this optimizer; {kind} instead")
    draft.set("training.optimizer", kind)


def put_scheduler(draft: Draft, key: str, default: str) -> None:
    name = str(draft.file.take(key, default)).lower()
    if name not in SCHEDULERS:
        draft.drop(key, "hpsearch does not have this schedule; cosine instead")
        name = "cosine"
    draft.set("training.lr_scheduler", name)


def put_batch(draft: Draft, rows_per_forward: int, forwards_per_step: int) -> None:
    """Rows per optimizer step. How many of them fit in one forward depends on the machine."""
    draft.set("training.batch_size", rows_per_forward * forwards_per_step)
    if forwards_per_step > 1:
        draft.comments["training.batch_size"] = f"{rows_per_forward} × {forwards_per_step} in the file"


def put_warmup(draft: Draft, max_steps: int, default: float) -> None:
    """hpsearch's warm-up is a share of the steps, so that it is the same for a short trial and the final run."""
    file = draft.file
    steps = file.number("warmup_steps", 0.0)
    ratio = file.number("warmup_ratio", default)
    if 0 < steps < 1:
        ratio = steps
    elif steps and max_steps:
        ratio = min(round(steps / max_steps, 4), 0.5)
        draft.comments["training.warmup_ratio"] = f"warmup_steps {steps:g} of max_steps {max_steps}"
    elif steps:
        ratio = 0.03
        draft.drop("warmup_steps", "hpsearch warms up over a share of the steps, and how many there are is not known")
    draft.set("training.warmup_ratio", ratio)


def put_base(draft: Draft, base: str) -> None:
    draft.set("model.base", base)
    if QUANTIZED_NAME.search(base):
        draft.to_do.append(
            f"model.base: {base} looks quantized already; hpsearch quantizes by itself: name the same model in "
            "16 bit, or set model.quantization to none if transformers can train an adapter on it as it is"
        )


def put_trust(draft: Draft) -> None:
    if draft.file.flag("trust_remote_code"):
        draft.set(
            "model.trust_remote_code", True, "runs the model's own Python code; transformers' own models need none"
        )


def put_quantization(draft: Draft, bits: int, key: str) -> None:
    """4 bit is nf4 with double quantization; 16 bit is kept; anything in between becomes nf4."""
    if bits not in (0, 4, 16):
        draft.drop(key, "hpsearch has nf4 (4 bit) or no quantization; nf4 instead")
    draft.set("model.quantization", "none" if bits in (0, 16) else "nf4")


def put_attention(draft: Draft, key: str, name: str) -> None:
    kind = ATTENTION.get(name)
    if kind is None:
        draft.drop(key, "hpsearch has sdpa, eager and flash_attention_2; sdpa instead")
    comment = "needs the flash-attn package; sdpa needs nothing" if kind == "flash_attention_2" else None
    draft.set("model.attention", kind or "sdpa", comment)


def put_lora(draft: Draft, r: int, alpha: int, dropout: float, *, alpha_is_default: str | None) -> None:
    if min(r, alpha) < 1:
        draft.file.refuse(f"LoRA's rank and alpha must be at least 1, found {r} and {alpha}")
    draft.set("lora.r", r)
    draft.set("lora.alpha", alpha, alpha_is_default)
    draft.set("lora.dropout", dropout)


def put_adapter(draft: Draft, key: str) -> None:
    """The file continues from an existing adapter, whose own values then apply."""
    name = draft.file.text(key)
    if not name:
        return
    if "," in name or draft.file.flag("create_new_adapter"):
        draft.drop(key, "the file merges it into the base first; merge it, and name the result as model.base")
        return
    draft.set("model.adapter", name)
    dropout = draft.get("lora.dropout")
    draft.values["lora"] = {"dropout": dropout}
    draft.to_do.append(f"{key}: {name} counts from this study file's folder, or is a name on the hub")


def put_learning_rate(draft: Draft, value: float, *, is_full: bool) -> None:
    if not is_full:
        draft.set("training.learning_rate", value)
        return
    draft.drop("learning_rate", f"it was for all weights; LoRA takes about {FULL_TO_LORA} times as much")
    draft.set("training.learning_rate", float(f"{value * FULL_TO_LORA:.6g}"))


def put_full_as_qlora(draft: Draft, key: str, what: str) -> None:
    """`what`: how the file trains, such as "trains all weights"."""
    draft.set("model.quantization", "nf4", "QLoRA; none where 16-bit weights fit")
    put_lora(draft, 16, 32, 0.05, alpha_is_default=None)
    draft.set("lora.target_modules", "all-linear")
    draft.drop(key, f"the file {what}; hpsearch trains a LoRA adapter, here QLoRA with r 16 on all linear layers")


def put_targets(draft: Draft, key: str, names: list[str]) -> None:
    """hpsearch uses the last part of a layer's name: q_proj, not self_attn.q_proj, nor a pattern."""
    short = list(dict.fromkeys(found for name in names for found in last_names(name)))
    if not short:
        if names:
            draft.drop(key, "no layer names could be read from it; all linear layers instead")
        draft.set("lora.target_modules", "all-linear")
        return
    if short != names:
        draft.drop(key, f"hpsearch takes the last part of layers' names: {', '.join(short)}")
    draft.set("lora.target_modules", short)


def last_names(pattern: str) -> list[str]:
    r"""Layer names at the end of a path or a pattern: `mlp.(up|down)_proj` → up_proj, down_proj."""
    if re.fullmatch(r"[\w.]+", pattern):
        return [pattern.rpartition(".")[2]]
    found = []
    for ending in re.finditer(r"\.\(([\w|]+)\)(\w*)(?=$|[|)])", pattern):
        found += [name + ending[2] for name in ending[1].split("|")]
    return found


def put_duration(draft: Draft, epochs: float, max_steps: int) -> None:
    draft.set("final.epochs", epochs)
    if max_steps > 0:
        draft.set("final.max_steps", max_steps, "overrides epochs")
