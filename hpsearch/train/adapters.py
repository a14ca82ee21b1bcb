"""The LoRA adapter: which layers it is put on, and whether it is new or an earlier one that the run continues from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from hpsearch.adapter import KEY, adapter_folder
from hpsearch.errors import FieldError, cut
from hpsearch.spec.model import LoraSpec, ModelSpec

_OWN = "default"
REFERENCE = "ref"
"""trl's name for a frozen copy of the adapter that a preference training continues from."""


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
    """A pattern of the linear layers outside of the language model: the vision encoder and its projector."""
    decoder = model.get_decoder()
    inside = {id(module) for module in decoder.modules()} | {id(model.get_output_embeddings())}
    outside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) not in inside
    ]
    return "|".join(map(re.escape, outside)) or None


def attach(model: PreTrainedModel, lora: LoraSpec, start: ModelSpec | None = None) -> PeftModel:
    """A new adapter on `model`, in float32 and drawn from torch's current random state; or the one that `start` names.

    Raises:
        FieldError: that one is missing, or does not fit `model`.
    """
    if start is not None and start.adapter is not None:
        adapted = _continued(model, lora, start)
    else:
        adapted = get_peft_model(model, _new_config(model, lora))
    if not adapts_vision(adapted):
        _keep_gradients_out(adapted)
    return adapted


def _new_config(model: PreTrainedModel, lora: LoraSpec) -> LoraConfig:
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=None if lora.vision else _outside_language(model),
        use_rslora=lora.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _continued(model: PreTrainedModel, lora: LoraSpec, start: ModelSpec) -> PeftModel:
    """Like PeftModel.from_pretrained(…, is_trainable=True), with the study's dropout; on a model without weights (meta
    tensors) it only checks whether the adapter fits.
    """
    folder = adapter_folder(start)
    config = _config_in(folder, dropout=lora.dropout)
    recorded, config.base_model_name_or_path = config.base_model_name_or_path, None  # peft fills in this base's
    try:
        adapted = get_peft_model(model, config, low_cpu_mem_usage=model.device.type == "meta")
        found = _load(adapted, folder)
    except (ValueError, RuntimeError) as error:
        raise FieldError(KEY, _why_unfit(start, recorded, str(error))) from error
    if wrong := [*found.missing_keys, *found.unexpected_keys]:
        raise FieldError(KEY, _why_unfit(start, recorded, f"{len(wrong)} layers differ, such as {wrong[0]}"))
    adapted.started_from = start  # type: ignore[assignment]
    return adapted


def _config_in(folder: Path, *, dropout: float) -> LoraConfig:
    """Its initialisation doesn't matter: its weights are loaded."""
    config: LoraConfig = LoraConfig.from_pretrained(str(folder))
    config.lora_dropout, config.init_lora_weights, config.inference_mode = dropout, True, False
    return config


def _load(model: PeftModel, folder: Path, name: str = _OWN) -> Any:
    """Returns the keys that don't fit. Old layer names of architectures that transformers has renamed do fit."""
    renamed = getattr(model.get_base_model(), "_checkpoint_conversion_mapping", None)
    is_meta = model.device.type == "meta"
    return model.load_adapter(
        str(folder),
        name,
        is_trainable=name == _OWN,
        torch_device="cpu" if is_meta else str(model.device),
        low_cpu_mem_usage=is_meta,
        key_mapping=renamed,
    )


def _why_unfit(start: ModelSpec, recorded: str | None, error: str) -> str:
    of = f" (an adapter of {recorded})" if recorded else ""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return f"{start.adapter}{of} does not fit {start.base}: {cut(lines[min(1, len(lines) - 1)], 300)}"


def begin_again(model: PeftModel) -> None:
    """Resets an adapter that continues from another one to exactly that one's weights."""
    start = getattr(model, "started_from", None)
    if start is not None:
        _load(model, adapter_folder(start))


def keep_reference(model: PeftModel) -> None:
    """If the adapter continues from another one: a frozen copy of that one, under the name `REFERENCE`.

    For methods whose loss compares with the model before the training, as in trl 1.16 (trainer/dpo_trainer.py,
    `model.add_adapter("ref", …)`). A new adapter needs none: the base, with the adapter switched off, is the reference.
    """
    start = getattr(model, "started_from", None)
    if start is None:
        return
    folder = adapter_folder(start)
    model.add_adapter(REFERENCE, _config_in(folder, dropout=0.0))
    _load(model, folder, REFERENCE)
    for name, parameter in model.named_parameters():
        if f".{REFERENCE}." in name:
            parameter.requires_grad_(False)


def reopen(model: PreTrainedModel, adapter: Path, spec: ModelSpec) -> PeftModel:
    """A trained adapter on its base, for inference."""
    adapted = PeftModel.from_pretrained(model, str(adapter))
    if spec.adapter is not None:
        adapted.started_from = spec  # type: ignore[assignment]
    return adapted


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Saves the trained adapter only, without the reference, and without PEFT's model card: it is an empty form
    (peft 0.21, peft_model.py, `create_or_update_model_card`). An export has a card that says something.
    """
    model.save_pretrained(str(folder), selected_adapters=[_OWN])
    (folder / "README.md").unlink(missing_ok=True)


def adapts_vision(model: PeftModel | PreTrainedModel) -> bool:
    """Whether an adapter targets layers outside of the language model: then the vision tower's outputs change and can't
    be reused.
    """
    if not isinstance(model, PeftModel):
        return False
    whole: Any = model.get_base_model()
    inside = {id(module) for module in whole.get_decoder().modules()} | {id(whole.get_output_embeddings())}
    return any(isinstance(module, BaseTunerLayer) and id(module) not in inside for module in whole.modules())


def _keep_gradients_out(model: PeftModel) -> None:
    """Stops gradients from entering the frozen vision tower and its projector.

    With gradient checkpointing SFTTrainer calls `enable_input_require_grads` (trl 1.16, sft_trainer.py), which makes
    the outputs of every embedding require gradients, also of the tower's patches (transformers 5.24,
    modeling_utils.py): the whole tower would be computed twice and back-propagated, for nothing.
    """
    inner: Any = model.get_base_model().base_model
    if hasattr(inner, "get_image_features"):
        inner.get_image_features = torch.no_grad()(inner.get_image_features)


def to_float32(model: PeftModel) -> None:
    """Keeps trainable weights in float32.

    SFTTrainer casts a quantized model's adapter to bfloat16 (trl 1.16, sft_trainer.py, "When using QLoRA"). With 8 bits
    of mantissa an AdamW step of 1e-5 on a weight of 0.02 rounds to nothing, so a search over learning rates would
    compare runs that do not learn with runs that do.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def parameter_counts(model: PeftModel) -> tuple[int, int]:
    """(trainable, all) parameters; 4-bit weights counted unpacked, without a reference adapter."""
    trainable, total = model.get_nb_trainable_parameters()
    copied = sum(parameter.numel() for name, parameter in model.named_parameters() if f".{REFERENCE}." in name)
    return int(trainable), int(total) - copied
