"""Checking what training needs: the libraries, the device, forward and backward of a 4-bit layer and a fused head."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from hpsearch.jobs import Check, DiagnosisResult
from hpsearch.trial import GIB

_SHOWN = ("torch", "transformers", "peft", "bitsandbytes", "trl", "accelerate")
_SMALL_CARD_GIB = 12
_TOLERANCE = 0.1
"""For log-probabilities of up to 40 nats: products may be rounded to TF32, a wrong kernel is off by whole nats."""


def diagnose() -> DiagnosisResult:
    return DiagnosisResult(checks=[_libraries(), *_devices(), _four_bit(), _kernels()])


def _libraries() -> Check:
    found = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
    return Check(name="training libraries", verdict="works", found=found)


def _devices() -> list[Check]:
    if not torch.cuda.is_available():
        num_threads = torch.get_num_threads()
        threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
        return [
            Check(
                name="GPU",
                verdict="limited",
                found=f"none that torch can use; training takes {threads} of the CPU",
                fix="tiny bases train on the CPU; for real ones install an NVIDIA driver that torch's CUDA "
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
        fix = (
            "frozen weights take half a byte each in 4 bit, embeddings and head two, and activations come on top: take "
            "small bases and batches, and gradient_checkpointing: true"
        )
        return Check(name=f"GPU {index}", verdict="limited", found=found, fix=fix)
    return Check(name=f"GPU {index}", verdict="works", found=found)


def _four_bit() -> Check:
    """One LoRA step through an NF4 layer: what every trial does."""
    name = "4-bit training (bitsandbytes NF4)"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        layer = Linear4bit(64, 64, quant_type="nf4", compress_statistics=True, compute_dtype=torch.float32)
        model = get_peft_model(torch.nn.Sequential(layer).to(device), LoraConfig(target_modules=["0"]))
        loss = model(torch.ones(2, 64, device=device)).square().mean()
        loss.backward()
    except Exception as error:
        # Any error of bitsandbytes on an unsupported machine is a result of the check.
        return Check(
            name=name,
            verdict="fails",
            found=f"{type(error).__name__}: {error}",
            fix="see https://huggingface.co/docs/bitsandbytes/installation; model.quantization: none does without",
        )
    return Check(name=name, verdict="works", found=f"a forward and backward pass on {device}")


def _kernels() -> Check:
    """The fused head with which trl computes its losses, for every `loss_type` (1.16, sft_trainer.py, `compute_loss`):
    a Triton kernel on CUDA, which compiles a C stub at its first use. A classifier does not use it.

    Compiled again, not taken from Triton's cache: the compiler may have been removed since.
    """
    name = "kernels (Triton, with a C compiler)"
    if not torch.cuda.is_available():
        return Check(name=name, verdict="works", found="not tried: without CUDA nothing is compiled")
    try:
        with tempfile.TemporaryDirectory() as empty:
            os.environ["TRITON_CACHE_DIR"] = empty  # the process does nothing else
            difference = _fused_head("cuda")
    except Exception as error:
        # Any error of Triton, the compiler or the driver is a result of the check.
        return Check(name=name, verdict="fails", found=f"{type(error).__name__}: {error}", fix=_compiler_fix())
    if difference > _TOLERANCE:
        found = f"the fused head is off by {difference:.2g} in a log-probability"
        return Check(name=name, verdict="fails", found=found, fix="reinstall torch and triton of matching versions")
    return Check(name=name, verdict="works", found="compiled and ran trl's fused head, forward and backward")


def _fused_head(device: str) -> float:
    """The largest difference to torch's own cross-entropy, over 8 tokens and 1,000 vocabulary entries, including
    gradients.
    """
    generator = torch.Generator().manual_seed(0)
    words, hidden = (torch.randn(size, 64, generator=generator) for size in (1000, 8))
    targets = torch.arange(8) * 100
    ours = hidden.clone().to(device).requires_grad_()
    theirs = hidden.clone().requires_grad_()
    settings = (1.0, 512, None, 1.0, ("log_probs", "entropy", "is_top1"))
    log_probs, *_ = ChunkedLogProbFunction.apply(ours, words.to(device), None, targets.to(device), *settings)
    log_probs.sum().backward()
    exact = -torch.nn.functional.cross_entropy(theirs @ words.T, targets, reduction="none")
    exact.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    pairs = ((log_probs.detach().cpu(), exact.detach()), (ours.grad.cpu(), theirs.grad))
    return max(float((one - other).abs().max()) for one, other in pairs)


def _compiler_fix() -> str:
    """Triton uses $CC, gcc or clang, and Python's headers (3.9, runtime/build.py, `_build`)."""
    if not os.environ.get("CC") and not shutil.which("gcc") and not shutil.which("clang"):
        return "on Debian and Ubuntu: apt-get install gcc libc6-dev"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are missing; on Debian and Ubuntu: apt-get install python3-dev"
    return "check that $CC or gcc compiles, that ldconfig -p lists libcuda.so.1, and that ~/.triton can be written"
