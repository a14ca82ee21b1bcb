"""The LoRA adapter: which layers it may sit on, and a new one for each run."""

from __future__ import annotations

import re

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from hpsearch.spec.model import LoraSpec


def linear_names(model: PreTrainedModel, *, vision: bool) -> list[str]:
    """Last name components of the linear layers that an adapter may target, such as q_proj and down_proj."""
    excluded = re.compile(_outside_language(model) or r"(?!)") if not vision else re.compile(r"(?!)")
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head and not excluded.fullmatch(name)
        }
    )


def _outside_language(model: PreTrainedModel) -> str | None:
    """A pattern of the linear layers that are not the language model's: the vision encoder and its projector."""
    decoder = model.get_decoder()
    inside = {id(module) for module in decoder.modules()} | {id(model.get_output_embeddings())}
    outside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) not in inside
    ]
    return "|".join(map(re.escape, outside)) or None


def attach(model: PreTrainedModel, lora: LoraSpec) -> PeftModel:
    """A new adapter on `model`, in float32 and drawn from torch's current random state."""
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=None if lora.vision else _outside_language(model),
        use_rslora=lora.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def to_float32(model: PeftModel) -> None:
    """Keeps trainable weights in float32.

    SFTTrainer casts a quantized model's adapter to bfloat16 (trl 1.16, sft_trainer.py, "When using QLoRA"). With
    8 bits of mantissa an AdamW step of 1e-5 on a weight of 0.02 rounds to nothing, so a search over learning
    rates would compare runs that do not learn with runs that do.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def parameter_counts(model: PeftModel) -> tuple[int, int]:
    """(trainable, all) parameters; 4-bit weights counted unpacked."""
    trainable, total = model.get_nb_trainable_parameters()
    return int(trainable), int(total)
