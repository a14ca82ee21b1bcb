"""What a tutorial's code has around its loop: the 4-bit base, the adapter, the collator, the trainer's arguments.

Two lines are not in any tutorial. Without them the losses could not be compared, and on some machines no trial of the
others would end; a comment beside each says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, set_seed

from bench.race.setting import SEED, Point, Setting, rows_of

ON_GPU = torch.cuda.is_available()
DTYPE = torch.bfloat16 if ON_GPU else torch.float32
IGNORED = -100


def load_model(setting: Setting, point: Point) -> Any:
    """Loads and quantizes the base, and puts a new adapter on its language layers."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=DTYPE
    )
    base: Any = AutoModelForImageTextToText.from_pretrained(
        setting.base, quantization_config=quantization, dtype=DTYPE, device_map={"": 0} if ON_GPU else None
    )
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=setting.gradient_checkpointing)
    for module in base.modules():
        if isinstance(module, Linear4bit):
            # On CPUs with avx512_bf16 the first validation repacks the weights, and training breaks (0.50.2).
            module.support_avx512bf16_for_cpu = False
    lora = LoraConfig(
        r=point.r,
        lora_alpha=point.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=r".*(vision_tower|multi_modal_projector|visual).*",
        bias="none",
        task_type="CAUSAL_LM",
    )
    set_seed(SEED)
    return get_peft_model(base, lora)


def in_float32(model: Any) -> None:
    """Undoes SFTTrainer's rounding of the adapter to bfloat16: its steps would be other ones than everyone else's."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def rounded(model: Any) -> Any:
    """A new adapter as it is behind SFTTrainer: rounded once. transformers' own Trainer leaves it as it was drawn."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16().float()
    return model


def load_rows(folder: Path, split: str) -> Any:
    from datasets import Dataset, disable_progress_bars
    from datasets import Image as ImageFeature

    disable_progress_bars()
    rows = [
        {
            "image": row["image"],
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]},
                {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]},
            ],
        }
        for row in rows_of(folder, split)
    ]
    return Dataset.from_list(rows).cast_column("image", ImageFeature())


class Collator:
    """Renders, tokenizes, pads, and masks all but the answer, found by the prompt's length."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        images = [[row["image"].convert("RGB")] for row in rows]
        whole = [self._render(row["messages"], ask=False).rstrip() for row in rows]
        prompts = [self._render(row["messages"][:-1], ask=True) for row in rows]
        batch = self._process(whole, images)
        asked = self._process(prompts, images)["attention_mask"].sum(dim=1)
        labels = batch["input_ids"].clone()
        for row, length in enumerate(asked):
            labels[row, :length] = IGNORED
        labels[batch["attention_mask"] == 0] = IGNORED
        batch["labels"] = labels
        return dict(batch)

    def _render(self, messages: Any, *, ask: bool) -> str:
        clean = [{"role": m["role"], "content": [_without_none(part) for part in m["content"]]} for m in messages]
        return str(self._processor.apply_chat_template(clean, tokenize=False, add_generation_prompt=ask))

    def _process(self, texts: list[str], images: list[list[Image.Image]]) -> Any:
        return self._processor(
            text=texts,
            images=images,
            return_tensors="pt",
            padding=True,
            padding_side="right",
            add_special_tokens=False,  # the template has written them
        )


def _without_none(part: dict[str, Any]) -> dict[str, Any]:
    """Arrow gives every part all keys."""
    return {key: value for key, value in part.items() if value is not None}


def load_processor(setting: Setting) -> Any:
    return AutoProcessor.from_pretrained(setting.base)


def arguments(setting: Setting, folder: Path, **more: Any) -> dict[str, Any]:
    """One row per forward, accumulated to a step; four validations."""
    return {
        "output_dir": str(folder / "output"),
        "max_steps": setting.steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": setting.rows_per_step,
        "per_device_eval_batch_size": 1,
        "eval_strategy": "steps",
        "eval_steps": setting.steps_per_report,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "optim": "adamw_torch",
        "gradient_checkpointing": setting.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": SEED,
        "data_seed": SEED,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **more,
    }
