"""The LoRA adapter: which layers it may sit on, and a new one for each run."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
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
    adapted = get_peft_model(model, config)
    if not adapts_vision(adapted):
        _keep_gradients_out(adapted)
    return adapted


def adapts_vision(model: Any) -> bool:
    """Whether an adapter sits anywhere but in the language model: then no tower says twice what it said once."""
    if not isinstance(model, PeftModel):
        return False
    whole = model.get_base_model()
    inside = {id(module) for module in whole.get_decoder().modules()} | {id(whole.get_output_embeddings())}
    return any(isinstance(module, BaseTunerLayer) and id(module) not in inside for module in whole.modules())


def _keep_gradients_out(model: PeftModel) -> None:
    """No gradient enters the vision tower and its projector, frozen as they are.

    With gradient checkpointing SFTTrainer calls `enable_input_require_grads` (trl 1.16, sft_trainer.py), which has the
    outputs of every embedding require gradients, of the tower's patches too (transformers 5.24, modeling_utils.py):
    the whole tower would be computed twice and back-propagated, for nothing.
    """
    inner = model.get_base_model().base_model
    if hasattr(inner, "get_image_features"):
        inner.get_image_features = torch.no_grad()(inner.get_image_features)


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
