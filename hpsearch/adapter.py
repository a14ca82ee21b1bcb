"""The adapter that a training continues from: where it is, its LoRA settings, and its checksum.

Both planes use it: the study takes over the adapter's settings, and the trainer loads its weights.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpsearch.errors import FieldError, UnreadableFile
from hpsearch.files import read_json
from hpsearch.folders import JobFolder
from hpsearch.spec.model import LoraSpec, ModelSpec
from hpsearch.trial import Outcome, TrialConfig

KEY = "model.adapter"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PIECE = 2**20
_ENCODER = re.compile(r"\.(visual|vision_\w+|multi_modal_projector)\.")
"""transformers' names for the parts of a vision-language model outside of the language model."""
_REFUSED = {
    "modules_to_save": "it has full layers besides LoRA (modules_to_save)",
    "trainable_token_indices": "it has trained tokens besides LoRA (trainable_token_indices)",
    "target_parameters": "it adapts parameters that are not layers (target_parameters)",
    "use_dora": "it is a DoRA adapter",
    "use_qalora": "it is a QA-LoRA adapter",
    "alora_invocation_tokens": "it is an activated LoRA, switched on by tokens of a prompt",
}
_KEEPS_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to initialise a new adapter that leave the base unchanged; the others, such as PiSSA, change its weights."""


@dataclass(frozen=True)
class Adapter:
    """`base` is the name of its base model in its config, if there is one."""

    lora: LoraSpec
    base: str | None
    sha256: str


def adapter_folder(model: ModelSpec) -> Path:
    """The model's adapter on this machine; one from the hub is downloaded first.

    Raises:
        FieldError: it is missing, or not the one that the study began with.
    """
    assert model.adapter is not None
    path = Path(model.adapter)
    folder = path if path.is_absolute() else _from_hub(model.adapter, model.adapter_revision)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise FieldError(KEY, f"{model.adapter}: {_what_is_missing(folder, name)}")
    if model.adapter_sha256 not in (None, checksum(folder)):
        raise FieldError(KEY, f"{model.adapter} has changed since the study began")
    return folder


def _what_is_missing(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return "there is no such folder on this machine"
    if name == WEIGHTS and (folder / "adapter_model.bin").exists():
        return f"has its weights as a pickle: load it with peft and save it again, which writes {WEIGHTS}"
    return f"there is no adapter: {folder} has no {name}"


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, "adapter_model.*"]))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FieldError(KEY, f"{name!r} can't be downloaded from the hub: {reason}") from None


def checksum(folder: Path) -> str:
    """SHA-256 over the config and the weights."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as content:
            while piece := content.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


def read_adapter(folder: Path) -> Adapter:
    """Raises FieldError where training can't continue from it."""
    try:
        config = read_json(folder / CONFIG)
    except UnreadableFile as error:
        raise FieldError(KEY, str(error)) from None
    if config.get("peft_type") != "LORA":
        raise FieldError(KEY, f"{folder} is no LoRA adapter, but of type {config.get('peft_type')}")
    reasons = [words for key, words in _REFUSED.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        reasons.append("it trained the layers' biases as well")
    if config.get("init_lora_weights", True) not in _KEEPS_THE_BASE:
        reasons.append(f"it was begun by {config['init_lora_weights']}, which changes the base")
    if reasons:
        raise FieldError(KEY, f"{folder}: training can't continue from it: {'; '.join(reasons)}")
    run, base = _run_of(folder), config.get("base_model_name_or_path")
    lora = _lora(folder, config, run.lora if run else None)
    return Adapter(lora, run.model.base if run else str(base) if base else None, checksum(folder))


def _run_of(folder: Path) -> TrialConfig | None:
    """The final run that the adapter is from. Raises FieldError where that run has not ended."""
    run = JobFolder(folder.parent)
    if folder.name != run.adapter.name or not run.config.exists():
        return None
    job = run.job()
    if not isinstance(job, TrialConfig):
        return None
    result = run.result_if_whole()
    if result is None or result.outcome is not Outcome.COMPLETE:
        raise FieldError(KEY, f"{run.path}: its training is not complete; continue it with hpsearch train --resume")
    return job


def _lora(folder: Path, config: dict[str, Any], own: LoraSpec | None) -> LoraSpec:
    names = _layers(folder / WEIGHTS)
    found: dict[str, Any] = {
        "r": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout", 0.0),
        "target_modules": own.target_modules if own else sorted({name.rpartition(".")[2] for name in names}),
        "rslora": bool(config.get("use_rslora")),
        "vision": own.vision if own else any(_ENCODER.search(f".{name}.") for name in names),
    }
    try:
        return LoraSpec.model_validate(found)
    except ValidationError as error:
        field = error.errors()[0]["loc"][0]
        raise FieldError(KEY, f"{folder}: a study can't say its {field}, {found[str(field)]!r}") from None


def _layers(weights: Path) -> list[str]:
    """The layers that it adapts."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as content:
            names = list(content.keys())
    except (OSError, SafetensorError) as error:
        raise FieldError(KEY, f"{weights} can't be read: {error}") from None
    layers = [name.partition(".lora_")[0] for name in names if ".lora_" in name]
    if len(layers) < len(names) or not layers:
        other = next((name for name in names if ".lora_" not in name), "nothing")
        raise FieldError(KEY, f"{weights.parent}: training can't continue from it: it holds {other} besides LoRA")
    return layers
