"""What the tests of `hpsearch new` share: small training files of both tools, and the study that comes of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpsearch.convert import NewStudy, new_study
from hpsearch.spec import StudySpec, load_study

LLAMAFACTORY: dict[str, Any] = {
    "model_name_or_path": "org/model-1b",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "dataset": "faq",
    "template": "chatty",
    "cutoff_len": 700,
    "output_dir": "saves/x",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
}
AXOLOTL: dict[str, Any] = {
    "base_model": "org/model-1b",
    "load_in_8bit": False,
    "load_in_4bit": True,
    "adapter": "qlora",
    "datasets": [{"path": "org/chats", "type": "chat_template"}],
    "val_set_size": 0.05,
    "sequence_len": 900,
    "sample_packing": True,
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 2,
    "num_epochs": 2,
    "optimizer": "adamw_bnb_8bit",
    "lr_scheduler": "cosine",
    "learning_rate": 0.0002,
    "wandb_project": None,
}


@dataclass(frozen=True)
class Made:
    """A study that was made, and what it says when it is loaded."""

    new: NewStudy
    spec: StudySpec

    @property
    def told(self) -> str:
        return "\n".join(self.new.not_kept)

    @property
    def to_do(self) -> str:
        return "\n".join(self.new.to_do)


def write(folder: Path, values: dict[str, Any], **changes: Any) -> Path:
    """A training file; a change to `...` leaves the key out."""
    file = folder / "their.yaml"
    content = {key: value for key, value in (values | changes).items() if value is not ...}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def make(folder: Path, values: dict[str, Any], **changes: Any) -> Made:
    """The study that comes of `values`, as written and loaded again."""
    return make_from(write(folder, values, **changes))


def make_from(file: Path) -> Made:
    target = file.with_name("mine.yaml")
    new = new_study(file, target)
    target.write_text(new.text)
    if new.script:
        target.with_name(new.script_name).write_text(new.script)
    return Made(new, load_study(target).spec)
