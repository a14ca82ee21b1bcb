"""A training file of LLaMA-Factory's second generation: src/llamafactory/v1/config has its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpsearch.convert import settings
from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile, NotKept, read_mapping
from hpsearch.convert.llamafactory import VISION
from hpsearch.convert.parts import Part
from hpsearch.convert.preferences import put_llamafactory

TOOL = "LLaMA-Factory v1"


def is_mine(values: dict[str, Any]) -> bool:
    return "model" in values and any(key in values for key in ("train_dataset", "peft_config", "model_class"))


def read(file: ForeignFile) -> Draft:
    peft = file.section("peft_config")
    if peft.get("export_dir"):
        file.refuse("merges or exports a model (peft_config.export_dir); there is nothing to search")
    if not file.text("train_dataset"):
        file.refuse("names no data to train on (train_dataset). Give the training file")
    draft = Draft(file, TOOL)
    settings.put_base(draft, str(file.text("model")))
    quant = file.section("quant_config")
    bits = ForeignFile(file.path, quant).whole("quantization_bit", 4 if quant else 0)
    settings.put_quantization(draft, bits, "quant_config")
    settings.put_attention(draft, "flash_attn", str(file.take("flash_attn", "auto")))
    settings.put_trust(draft)
    is_lora = peft.get("name", "lora") == "lora" and bool(peft)
    if is_lora:
        _put_lora(draft, ForeignFile(file.path, peft))
    else:
        words = f"trains by {peft['name']}" if peft else "trains all weights (no peft_config)"
        settings.put_full_as_qlora(draft, "peft_config", words)
    settings.put_learning_rate(draft, file.number("learning_rate", 1e-4), is_full=not is_lora)
    _put_training(draft)
    _put_parts(draft)
    return draft


def _put_lora(draft: Draft, peft: ForeignFile) -> None:
    default = None if peft.take("lora_alpha") is not None else f"{TOOL}'s default"
    r, alpha, dropout = peft.whole("r", 8), peft.whole("lora_alpha", 16), peft.number("lora_dropout", 0.05)
    settings.put_lora(draft, r, alpha, dropout, alpha_is_default=default)
    targets = peft.names("target_modules")
    settings.put_targets(draft, "peft_config", [] if targets == ["all"] else targets)
    if peft.flag("use_rslora"):
        draft.set("lora.rslora", True)
    peft.take("name")
    rest = peft.left_over(())
    draft.not_kept += [NotKept(tuple(f"peft_config.{key}" for key in left.keys), left.why) for left in rest]


def _put_training(draft: Draft) -> None:
    file = draft.file
    max_steps = file.whole("max_steps", -1)
    batch = file.whole("micro_batch_size", 1)
    whole = file.whole("global_batch_size", batch)
    settings.put_batch(draft, batch, max(1, whole // max(batch, 1)))
    for key in ("optim_config", "lr_scheduler_config"):
        if file.take(key):
            draft.drop(key, "hpsearch takes adamw_torch and a cosine schedule here; training.* has others")
    draft.set("training.optimizer", "adamw_torch")
    draft.set("training.lr_scheduler", "cosine")
    draft.set("training.max_grad_norm", file.number("max_grad_norm", 1.0))
    file.take("enable_activation_checkpointing")
    draft.set("training.seed", file.whole("seed", 42))
    file.take("bf16")
    settings.put_duration(draft, file.number("num_train_epochs", 3), max_steps)
    draft.set("data.max_tokens", file.whole("cutoff_len", 2048), "longer rows are left out, not cut")


def _put_parts(draft: Draft) -> None:
    file = draft.file
    name = str(file.text("train_dataset"))
    images = "images" if VISION.search(name) else None
    draft.has_images = images is not None
    if not name.endswith((".yaml", ".yml")):
        found = file.find(name)
        draft.parts.append(_part(file, {"path": name, "source": "local" if found else "hf_hub"}, images, Path.cwd()))
        return
    listed = file.find(name)
    if listed is None:
        draft.to_do.append(
            f"data.source and data.columns: {name} lists the data sets, and is neither in this folder nor in one above "
            "the file. Run this again from the LLaMA-Factory checkout, or write the file or hub name yourself"
        )
        return
    root = listed.parents[len(Path(name).parts) - 1]  # LLaMA-Factory's working directory: image paths start there
    sets = ForeignFile(listed, {str(key): value for key, value in read_mapping(listed).items()})
    for key in sets.values:
        entry = sets.section(key)
        if not entry.get("path"):
            sets.refuse(f"data set {key} has no path")
        if entry.get("converter") == "pair" and draft.learns != "preference":
            put_llamafactory(draft, "dpo")
        draft.parts.append(_part(file, entry, images, root))


def _part(file: ForeignFile, entry: dict[str, Any], images: str | None, root: Path) -> Part:
    """One data set. Without a converter its rows are messages whose content is a list of typed parts."""
    name = str(entry["path"])
    is_local = entry.get("source", "hf_hub") == "local"
    common: dict[str, Any] = {
        "name": str((file.find(name) or file.path.parent / name).resolve()) if is_local else name,
        "is_local": is_local,
        "split": str(entry.get("split") or "train"),
        "limit": ForeignFile(file.path, entry).whole("size", 0) or None,
        "image_folder": str(root),
    }
    if entry.get("converter") == "pair":
        return Part(form="pairs", chosen="chosen", rejected="rejected", images=images, **common)
    if entry.get("converter") == "alpaca":
        questions = ("instruction", "input")
        return Part(form="pairs", questions=questions, between="", answer="output", images=images, **common)
    if entry.get("converter") == "sharegpt":
        return Part(form="turns", messages="conversations", role="from", content="value", images=images, **common)
    own_roles = (("user", "user"), ("assistant", "assistant"), ("system", "system"), ("human", "user"))
    return Part(form="turns", roles=own_roles, in_pieces=True, images=images, **common)
