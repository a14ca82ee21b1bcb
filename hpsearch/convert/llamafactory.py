"""A training file of LLaMA-Factory (https://github.com/hiyouga/LLaMA-Factory, keys in src/llamafactory/hparams)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpsearch.convert import settings
from hpsearch.convert.draft import Draft
from hpsearch.convert.file import ForeignFile, NotKept, read_mapping
from hpsearch.convert.parts import ROLES, Part
from hpsearch.convert.preferences import llamafactory_part, put_llamafactory

TOOL = "LLaMA-Factory"
KEYS = ("template", "finetuning_type", "stage", "cutoff_len", "dataset", "lora_rank", "lora_target", "infer_backend")
INFO = "dataset_info.json"

STAGES = {
    "rm": "trains a reward model (stage: rm); hpsearch learns from answers and preferences",
    "ppo": "is reinforcement learning (stage: ppo); hpsearch learns from answers and preferences",
}
VISION = re.compile(
    r"(?i)(^|[-_/.\d])vl([-_\d.]|$)|llava|pixtral|paligemma|mllama|vision|internvl|minicpm[-_]?v|mllm|multi-?modal"
)


def is_mine(values: dict[str, Any]) -> bool:
    return "model_name_or_path" in values and any(key in values or "export_dir" in values for key in KEYS)


def read(file: ForeignFile) -> Draft:
    _refuse_what_is_no_sft(file)
    draft = Draft(file, TOOL, is_plain=str(file.take("stage")).lower() == "pt")
    _put_model_and_lora(draft)
    _put_training(draft)
    stage = str(file.take("stage", "sft")).lower()
    if stage in ("dpo", "kto"):
        put_llamafactory(draft, stage)
    _put_parts(draft)
    looks_at_images = any(part.images for part in draft.parts)
    if not draft.parts:
        names = [*file.names("dataset"), str(file.values.get("template")), draft.get("model.base")]
        looks_at_images = any(VISION.search(name) for name in names)
    _put_vision(draft, looks_at_images)
    return draft


def _refuse_what_is_no_sft(file: ForeignFile) -> None:
    stage = str(file.take("stage", "sft")).lower()
    if file.take("export_dir"):
        file.refuse("merges or exports a model (export_dir); there is nothing to search. Give the training file")
    if stage not in ("sft", "pt", "dpo", "kto"):
        file.refuse(STAGES.get(stage, f"has stage: {stage}; hpsearch learns from answers and preferences"))
    trains = file.take("do_train")
    if trains is False or (trains is None and file.flag("do_predict")):
        file.refuse("predicts with a model (do_predict), it trains none. Give the training file")
    if not file.take("dataset"):
        file.refuse("is for inference: it names a model and no data set to train on. Give the training file")
    if not file.text("model_name_or_path"):
        file.refuse("model_name_or_path is empty: name the model to train")


def _put_model_and_lora(draft: Draft) -> None:
    file = draft.file
    settings.put_base(draft, str(file.text("model_name_or_path")))
    if (revision := file.text("model_revision")) and revision != "main":
        draft.set("model.revision", revision)
    settings.put_quantization(draft, file.whole("quantization_bit", 0), "quantization_bit")
    if file.flag("fp16"):
        draft.set("model.dtype", "float16")
    file.take("bf16")  # hpsearch's own choice, where the hardware has it
    settings.put_attention(draft, "flash_attn", str(file.take("flash_attn", "auto")))
    settings.put_trust(draft)
    kind = str(file.take("finetuning_type", "lora")).lower()
    if kind != "lora":
        words = {"full": "trains all weights", "freeze": "trains some layers' weights", "oft": "trains an OFT adapter"}
        settings.put_full_as_qlora(draft, "finetuning_type", words.get(kind, f"trains by {kind}"))
    else:
        _put_lora(draft)
    rate = file.number("learning_rate", 5e-5)
    settings.put_learning_rate(draft, rate, is_full=kind in ("full", "freeze"))
    settings.put_adapter(draft, "adapter_name_or_path")


def _put_lora(draft: Draft) -> None:
    file = draft.file
    r = file.whole("lora_rank", 8)
    default = None if file.take("lora_alpha") is not None else f"{TOOL}'s default: twice lora_rank"
    alpha, dropout = file.whole("lora_alpha", 2 * r), file.number("lora_dropout", 0.0)
    settings.put_lora(draft, r, alpha, dropout, alpha_is_default=default)
    targets = file.names("lora_target")
    settings.put_targets(draft, "lora_target", [] if targets == ["all"] else targets)
    if file.flag("use_rslora"):
        draft.set("lora.rslora", True)


def _put_training(draft: Draft) -> None:
    file = draft.file
    max_steps = file.whole("max_steps", -1)
    batch, accumulated = file.whole("per_device_train_batch_size", 8), file.whole("gradient_accumulation_steps", 1)
    settings.put_batch(draft, batch, accumulated)
    file.take("per_device_eval_batch_size")
    settings.put_optimizer(draft, "optim", "adamw_torch")
    settings.put_scheduler(draft, "lr_scheduler_type", "linear")
    settings.put_warmup(draft, max(max_steps, 0), 0.0)
    draft.set("training.weight_decay", file.number("weight_decay", 0.0))
    draft.set("training.max_grad_norm", file.number("max_grad_norm", 1.0))
    draft.set("training.seed", file.whole("seed", 42))
    settings.put_duration(draft, file.number("num_train_epochs", 3.0), max_steps)
    draft.set("data.max_tokens", file.whole("cutoff_len", 2048), "longer rows are left out, not cut")
    if system := file.text("default_system"):
        draft.set("data.system_prompt", system)
    for quiet in (
        "gradient_checkpointing",
        "disable_gradient_checkpointing",
        "do_train",
        "ignore_pad_token_for_loss",
        "dataset_dir",
        "pure_bf16",
    ):
        file.take(quiet)


def _put_vision(draft: Draft, looks_at_images: bool) -> None:
    file = draft.file
    pixels = file.whole("image_max_pixels", 0)
    tunes_vision = not file.flag("freeze_vision_tower", True)
    for quiet in ("freeze_multi_modal_projector", "freeze_language_model"):
        if file.take(quiet) is not None and file.flag(quiet) != (quiet == "freeze_multi_modal_projector"):
            draft.drop(quiet, "hpsearch has the language model alone, or with the vision encoder (lora.vision)")
    if not looks_at_images:
        return
    draft.has_images = True
    if pixels > 0:
        draft.set("data.image_size", math.isqrt(pixels), "at most so many pixels a side")
    if tunes_vision:
        draft.set("lora.vision", True)


def _put_parts(draft: Draft) -> None:
    file = draft.file
    names = file.names("dataset")
    limit = file.whole("max_samples", 0) or None
    folder = str(file.take("dataset_dir", "data"))
    info = file.find(f"{folder}/{INFO}")
    if info is None:
        draft.to_do.append(
            f"data.source and data.columns: {', '.join(names)} are names in LLaMA-Factory's {folder}/{INFO}, which is "
            "neither in this folder nor in one above the file. Run this again from the LLaMA-Factory checkout, or "
            "write the file or hub name yourself (alpaca_en, for example, is llamafactory/alpaca_en on the hub)"
        )
        if limit:
            draft.drop("max_samples", "the data set is not known here; budget.train_fraction makes trials smaller")
        return
    known = ForeignFile(info, {str(key): value for key, value in read_mapping(info).items()})
    for name in names:
        entry = ForeignFile(info, known.section(name))
        if not entry.values:
            draft.to_do.append(f"data.source: {info} has no data set {name}; write its file or hub name yourself")
        elif entry.flag("ranking") and draft.values["preference"].get("loss", "kto") == "kto":
            file.refuse(f"data set {name} holds pairs (ranking: true in {info}); they are for stage: dpo")
        elif _fits(draft, name, ForeignFile(info, entry.section("columns"))):
            part = _part(name, entry, limit, file.text("media_dir"))
            draft.parts.append(_plain(part) if draft.is_plain else _judged(draft, entry, part))
    if not draft.parts and not draft.to_do:
        file.refuse(f"trains on video or sound alone ({', '.join(names)}); hpsearch has texts and images")


def _fits(draft: Draft, name: str, columns: ForeignFile) -> bool:
    if columns.take("videos") or columns.take("audios"):
        draft.not_kept.append(NotKept((f"data set {name}",), "it has video or sound; hpsearch has texts and images"))
        return False
    if lost := [key for key in ("tools", "history") if columns.take(key)]:
        draft.not_kept.append(NotKept(tuple(f"{name}: {key}" for key in lost), "hpsearch has no such column"))
    return True


def _plain(part: Part) -> Part:
    """Pretraining uses only the first column (src/llamafactory/data/processor/pretrain.py)."""
    return replace(part, form="text", answer=part.questions[0]) if part.questions else replace(part, form="unknown")


def _judged(draft: Draft, entry: ForeignFile, part: Part) -> Part:
    """The preferences in the part, or the part unchanged if there are none."""
    if draft.learns != "preference":
        return part
    columns = ForeignFile(entry.path, entry.section("columns"))
    found = llamafactory_part(part, columns, ranks=draft.get("preference.loss") != "kto")
    if found is None or (found.chosen and not entry.flag("ranking")):
        draft.file.refuse(f"data set {part.name} holds no preferences of this kind; see ranking and kto_tag in {INFO}")
    return found


def _part(name: str, entry: ForeignFile, limit: int | None, media: str | None) -> Part:
    """One entry of dataset_info.json. Its parser ignores columns that `columns` does not name."""
    hub = entry.text("hf_hub_url") or entry.text("ms_hub_url") or entry.text("om_hub_url")
    folder = entry.path.parent.resolve()
    columns = ForeignFile(entry.path, entry.section("columns"))
    common: dict[str, Any] = {
        "name": hub or str(folder / (entry.text("file_name") or entry.text("script_url") or name)),
        "is_local": not hub,
        "config": entry.text("subset"),
        "split": entry.text("split") or "train",
        "limit": entry.whole("num_samples", 0) or limit,
        "images": columns.text("images"),
        "image_folder": str(Path(media).resolve() if media else folder),
        "system": columns.text("system"),
    }
    if entry.take("formatting", "alpaca") == "alpaca":
        named = columns.values or {"prompt": "instruction", "query": "input", "response": "output"}
        questions = tuple(str(named[key]) for key in ("prompt", "query") if named.get(key))
        return Part(form="pairs", questions=questions, answer=str(named.get("response") or "output"), **common)
    tags = ForeignFile(entry.path, entry.section("tags"))
    said = {"user_tag": ("human", "user"), "assistant_tag": ("gpt", "assistant"), "system_tag": ("system", "system")}
    roles = {tags.text(tag) or usual: meant for tag, (usual, meant) in said.items()}
    return Part(
        form="turns",
        messages=columns.text("messages") or "conversations",
        role=tags.text("role_tag") or "from",
        content=tags.text("content_tag") or "value",
        roles=tuple(((ROLES if not tags.values else {}) | roles).items()),
        **common,
    )
