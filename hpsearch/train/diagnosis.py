"""Trying out what training needs: the libraries, the device, and a real 4-bit layer, forward and backward."""

from __future__ import annotations

from importlib.metadata import version

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model

from hpsearch.jobs import Check, DiagnosisResult
from hpsearch.trial import GIB

_SHOWN = ("torch", "transformers", "peft", "bitsandbytes", "trl", "accelerate")
_SMALL_CARD_GIB = 12


def diagnose() -> DiagnosisResult:
    return DiagnosisResult(checks=[_libraries(), *_devices(), _four_bit()])


def _libraries() -> Check:
    found = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    return Check(name="training libraries", verdict="works", found=found)


def _devices() -> list[Check]:
    if not torch.cuda.is_available():
        return [
            Check(
                name="GPU",
                verdict="limited",
                found=f"none that torch can use; the CPU has {torch.get_num_threads()} threads",
                mend="tiny bases train on the CPU; for real ones install an NVIDIA driver that torch's CUDA "
                f"{torch.version.cuda} works with, and check it with nvidia-smi",
            )
        ]
    return [_gpu(index) for index in range(torch.cuda.device_count())]


def _gpu(index: int) -> Check:
    properties = torch.cuda.get_device_properties(index)
    memory_gib = properties.total_memory / GIB
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    found = f"{properties.name}, {memory_gib:.1f} GiB, bfloat16 {'yes' if bfloat16 else 'no'}"
    if memory_gib < _SMALL_CARD_GIB:
        mend = "4-bit bases up to about 3B parameters fit; take small batches and gradient_checkpointing: true"
        return Check(name=f"GPU {index}", verdict="limited", found=found, mend=mend)
    return Check(name=f"GPU {index}", verdict="works", found=found)


def _four_bit() -> Check:
    """One LoRA step through an NF4 layer: what every trial does."""
    name = "4-bit training (bitsandbytes NF4)"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        layer = Linear4bit(64, 64, quant_type="nf4", compress_statistics=True, compute_dtype=torch.float32)
        model = get_peft_model(torch.nn.Sequential(layer).to(device), LoraConfig(target_modules=["0"]))  # type: ignore[arg-type]
        loss = model(torch.ones(2, 64, device=device)).square().mean()
        loss.backward()
    except Exception as error:
        # Whatever bitsandbytes raises on a machine that it does not support is the finding.
        return Check(
            name=name,
            verdict="fails",
            found=f"{type(error).__name__}: {error}",
            mend="see https://huggingface.co/docs/bitsandbytes/installation; model.quantization: none does without",
        )
    return Check(name=name, verdict="works", found=f"a forward and backward pass on {device}")
