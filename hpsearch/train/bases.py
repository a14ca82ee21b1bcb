"""Base models: found, quantized, loaded once, and handed out as fresh copies that share the frozen weights.

A trial never touches the loaded model. It gets a copy of the module tree that shares every weight tensor with the
original. What a trial leaves behind in a model (PEFT wrappers, hooks on embeddings, flags, TRL's patched `forward`, a
compute dtype that stays on a Linear4bit) is left in the copy, and the copy is dropped. The shared weights are
fingerprinted before and after.
"""

from __future__ import annotations

import copy
import gc
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel

from hpsearch.errors import FieldError, did_you_mean
from hpsearch.jobs import Tell
from hpsearch.spec.model import TINY_BASES, ModelSpec
from hpsearch.train import quantized
from hpsearch.train.kept_rows import KeptRows
from hpsearch.train.memory import give_back
from hpsearch.train.tasks import Task
from hpsearch.trial import MIB


@dataclass(frozen=True)
class Base:
    """A loaded base. `model` is never changed; trials get `fresh_model`."""

    spec: ModelSpec
    model: PreTrainedModel
    processor: Any
    """An object of the task's `processor_class`: a tokenizer, or, if rows have images, a ProcessorMixin that contains
    one.
    """
    rows: KeptRows = field(default_factory=KeptRows, compare=False)

    def fresh_model(self) -> PreTrainedModel:
        """A new module tree around the same weights, in milliseconds."""
        shared: dict[int, Any] = {}
        for tensor in _tensors(self.model).values():
            shared[id(tensor)] = tensor
            if (state := getattr(tensor, "quant_state", None)) is not None:
                shared[id(state)] = state
        return copy.deepcopy(self.model, shared)

    def fresh_processor(self) -> Any:
        """A new tokenizer for each run, around the same image processor.

        transformers caches the constants of an image processor by the instance (5.23, image_processing_backends.py,
        `_fuse_mean_std_and_rescale_factor`): copies of it would never be freed.
        """
        parts = [getattr(self.processor, name, None) for name in ("image_processor", "video_processor")]
        return copy.deepcopy(self.processor, {id(part): part for part in parts if part is not None})

    def fingerprint(self) -> str:
        """A checksum of the weights, their quantization, and everything in the module tree that a trial could
        change.
        """
        digest = hashlib.sha256()
        for name, tensor in _tensors(self.model).items():
            digest.update(f"{name} {_tensor_facts(tensor)}".encode())
            state = getattr(tensor, "quant_state", None)
            while state is not None:  # the state's own absmax is quantized again
                digest.update(f"{state.blocksize} {_tensor_facts(state.absmax)}".encode())
                state = state.state2
        for name, module in self.model.named_modules():
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            flags = (module.training, getattr(module, "gradient_checkpointing", None), sorted(vars(module)))
            digest.update(f"{name} {type(module).__name__} {hooks} {flags}".encode())
        digest.update(self.model.config.to_json_string().encode())
        digest.update(self.model.generation_config.to_json_string().encode())
        return digest.hexdigest()[:16]


_CHECKSUM_PIECE = 4 * MIB


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _tensor_facts(tensor: torch.Tensor) -> str:
    """dtype, shape, flags and a checksum of the bytes."""
    facts = (tensor.dtype, tuple(tensor.shape), tensor.requires_grad, tensor.grad is None, _checksum(tensor.detach()))
    return " ".join(map(str, facts))


def _checksum(data: torch.Tensor) -> int:
    """The sum of the bytes, in pieces: torch makes an int64 copy of the bytes that it sums, eight times as large (2.15,
    aten/src/ATen/native/ReduceOpsUtils.h, `make_reduction`). For Gemma 3's embeddings that is 10 GiB.
    """
    raw = data.contiguous().reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    for piece in raw.split(_CHECKSUM_PIECE):
        total += piece.sum(dtype=torch.int64)
    return int(total)


class Bases:
    """Keeps the last base loaded: most trials of a study share it."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._warm: tuple[Task, Base] | None = None

    def get(self, task: Task, spec: ModelSpec) -> Base:
        """Raises FieldError where the base can't be loaded."""
        spec = spec.without_adapter
        if self._warm is None or self._warm[0] != task or self._warm[1].spec != spec:
            gc.unfreeze()
            self._warm = None  # free the old base before loading the new one
            give_back()
            self._warm = (task, load_base(task, spec, self._tell))
        return self._warm[1]


def compute_dtype(spec: ModelSpec) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that supports it, float16 on an older GPU, and float32 on a CPU."""
    if spec.dtype != "auto":
        dtype = getattr(torch, spec.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


class HubUnreachable(FieldError):
    """The hub did not answer, and the base is not among the downloaded ones: the study file may be right."""

    def __init__(self, base: str, error: Exception) -> None:
        super().__init__(
            "model.base",
            f"the hub ({constants.ENDPOINT}) can't be reached to download {base}: {error.__cause__ or error}\n"
            "try again when it can be reached; a base that is downloaded already is found without the hub "
            "with HF_HUB_OFFLINE=1 in the environment, and a local folder needs no hub",
        )


def find_base(spec: ModelSpec, tell: Tell) -> str:
    """The argument for `from_pretrained`; tiny bases are built first."""
    if not spec.base.startswith("tiny:"):
        return spec.base
    if spec.base not in TINY_BASES:
        raise FieldError("model.base", f"there is no {spec.base!r}; {did_you_mean(spec.base, list(TINY_BASES))}")
    from hpsearch.train.tiny import ensure_tiny  # imports scikit-learn, which most trainers don't need

    return str(ensure_tiny(spec.base, tell))


def load_config(spec: ModelSpec, tell: Tell) -> Any:
    """Asked for first: while the hub can't be reached it is given up after one round of retries (23 s, huggingface_hub
    2.4.0, utils/_http.py, `http_backoff`); a processor's files take two.
    """
    return _from_pretrained(AutoConfig, spec, tell, {})


def load_processor(task: Task, spec: ModelSpec, tell: Tell) -> Any:
    return _from_pretrained(task.processor_class, spec, tell, {})


def load_base(task: Task, spec: ModelSpec, tell: Tell) -> Base:
    """Loads, quantizes and freezes a base, or reads the quantized copy that an earlier trainer saved.

    Raises:
        FieldError: no such base, or not one of this task.
    """
    tell(f"loading {spec.base}", 0, 0)
    processor = load_processor(task, spec, tell)
    dtype = compute_dtype(spec)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": spec.attention}
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    if spec.quantization == "nf4":
        return _load_quantized(task, spec, tell, processor, options)
    model = _from_pretrained(task.model_class, spec, tell, options)
    return Base(spec, _freeze(model, dtype), processor)


def _load_quantized(task: Task, spec: ModelSpec, tell: Tell, processor: Any, options: dict[str, Any]) -> Base:
    dtype = options["dtype"]
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    location = find_base(spec, tell)

    def place_now() -> Path | None:
        facts = f"{settings.to_json_string(use_diff=False)} {dtype} {spec.attention}"
        return quantized.place_of(location, _revision(spec, location), facts, task.model_class)

    place = place_now()
    if place and (found := quantized.read_copy(place, location, task.model_class, options)):
        model, fingerprint = found
        base = Base(spec, _freeze(model, dtype), processor)
        if base.fingerprint() == fingerprint:
            return base
        quantized.reject(place, "it is not the model that was saved")
        del base, model, found
        give_back()
    model = _from_pretrained(task.model_class, spec, tell, options | {"quantization_config": settings})
    base = Base(spec, _freeze(model, dtype), processor)
    now = place_now()
    # Not if the hub's branch or the folder has changed meanwhile. None: it was downloaded just now.
    if now and place in (now, None):
        tell(f"keeping the quantized {spec.base} for the next trainer", 0, 0)
        quantized.keep(base.model, now, base.fingerprint())
    return base


def load_unquantized(task: Task, spec: ModelSpec, dtype: torch.dtype, tell: Tell) -> PreTrainedModel:
    """The whole base on the CPU, its weights rounded to `dtype`.

    Raises:
        FieldError: no such base, not one of this task, or one that was saved quantized.
    """
    attention = "sdpa" if spec.attention == "flash_attention_2" else spec.attention  # flash attention runs on GPUs only
    model = _from_pretrained(task.model_class, spec, tell, {"dtype": dtype, "attn_implementation": attention})
    if getattr(model, "hf_quantizer", None) is not None:
        message = f"{spec.base!r} is quantized itself; an adapter is merged into the base that it was quantized from"
        raise FieldError("model.base", message)
    assert isinstance(model, PreTrainedModel)
    return model


def _freeze(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Freezes the weights in their final dtypes: nothing may change them in place later.

    They keep the compute dtype in which they were loaded (peft's `prepare_model_for_kbit_training` makes float32 copies
    of all that are not 4-bit), except for float16, see `_wide_again`.

    bitsandbytes changes weights in place in two cases. On CPUs with avx512_bf16 it repacks a Linear4bit's weight at the
    first forward without gradients, and training forwards then lose the input's gradient; the flag turns that off. And
    Linear4bit.forward casts a bias to the compute dtype in place, so it is cast here. Source: bitsandbytes 0.50.2,
    nn/modules.py, `Linear4bit.forward`.
    """
    model.requires_grad_(False)
    if dtype == torch.float16:
        _wide_again(model)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if module.bias is not None:
                module.bias.data = module.bias.data.to(dtype)
    model.eval()
    return model


def _wide_again(model: PreTrainedModel) -> None:
    """Embeddings, norms and everything else that is no matrix product get float32 weights again.

    Hidden states have the embeddings' dtype: the 16-bit results of autocast are added to them. bfloat16 has the range
    of float32, and the bases are published in it; float16 ends at 65,504, which Gemma 3's hidden states exceed. Linear
    layers and convolutions can stay in float16: autocast would round their weights again at each forward. A head that
    is tied to the embeddings is an embedding.
    """
    for module in model.modules():
        if not isinstance(module, _ROUNDED_BY_AUTOCAST):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


_ROUNDED_BY_AUTOCAST = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)


def _from_pretrained(auto_class: Any, spec: ModelSpec, tell: Tell, options: dict[str, Any]) -> Any:
    location = find_base(spec, tell)
    trust = {"trust_remote_code": spec.trust_remote_code}
    try:
        return auto_class.from_pretrained(location, **trust, **_revision(spec, location), **options)
    except (OSError, ValueError) as error:
        if isinstance(error.__cause__, LocalEntryNotFoundError) and not is_offline_mode():
            raise HubUnreachable(spec.base, error.__cause__) from error
        raise FieldError("model.base", _why_not_loaded(spec.base, error)) from error


def _revision(spec: ModelSpec, location: str) -> dict[str, str]:
    return {} if Path(location).is_dir() or spec.revision is None else {"revision": spec.revision}


def _why_not_loaded(base: str, error: Exception) -> str:
    if isinstance(error.__cause__, LocalEntryNotFoundError):
        return f"{base!r} is not downloaded, and HF_HUB_OFFLINE is set: unset it, or name {_WHAT_A_BASE_IS}"
    first_line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{base!r} can't be loaded: {first_line} (a base is {_WHAT_A_BASE_IS})"


_WHAT_A_BASE_IS = (
    f"a local folder, a hub name such as Qwen/Qwen2.5-0.5B, or one of {', '.join(TINY_BASES)}; gated ones need HF_TOKEN"
)
