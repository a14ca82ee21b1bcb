"""Merging an adapter into its base, in 16 bit: merging into 4-bit weights would round away most of what it learned.

It runs on the CPU, in float32 if there is enough memory: the card that trained the 4-bit base may be too small for the
16-bit one. The result is loaded from its files and its logits are compared with those of base and adapter.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from datasets import Dataset
from peft import PeftModel

from hpsearch.jobs import ChatFormat, ExportConfig, ExportResult
from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import Bases, compute_dtype, load_processor, load_unquantized
from hpsearch.train.channel import Channel
from hpsearch.train.chat import chat_format
from hpsearch.train.checkpoint import save_like_base
from hpsearch.train.encoding import IGNORED, Batch, Encoder, Row
from hpsearch.train.ending import write_end
from hpsearch.train.loss import mixed_precision
from hpsearch.train.tasks import TASKS, Task

_TOLERANCE = {"bfloat16": 0.03, "float16": 0.01}
"""Share of the largest logit. A weight in bfloat16 has 8 bits of mantissa: each is off by up to 0.2 %."""
_ROUGHER = 3
"""Factor on the tolerance where memory is too small for float32."""
_CHEAP = 1_000_000_000
"""Parameters up to which the 4-bit base is compared on a CPU too."""
_MOST_POSITIONS = 64


@dataclass(frozen=True)
class _Merging:
    """The expected output of the merged model. Logits are of shape (positions, vocabulary)."""

    inputs: list[Batch]
    tuned: torch.Tensor
    untuned: torch.Tensor
    chat: ChatFormat
    is_exact: bool
    num_parameters: int


def export(config: ExportConfig, bases: Bases, channel: Channel) -> ExportResult:
    """Writes the merged model with all of its files to `config.output`.

    Raises:
        FieldError: the base can't be loaded, or is quantized itself.
    """
    task = TASKS[config.task]
    rows: list[Row] = list(Dataset.load_from_disk(str(config.check_rows)))
    merging = _merge(config, task, rows, channel)
    gc.collect()
    inputs, found = _read_back(config, task, rows, channel)
    gc.collect()
    largest = float(merging.tuned.abs().max())
    return ExportResult(
        num_positions=len(merging.tuned),
        largest_logit=largest,
        difference=float((found - merging.tuned).abs().max()) if found.shape == merging.tuned.shape else float("inf"),
        tolerance=largest * _TOLERANCE[config.dtype] * (1 if merging.is_exact else _ROUGHER),
        share_lost=_share_lost(merging, found),
        reads_alike=all(map(_are_alike, inputs, merging.inputs)),
        quantized_agreement=_quantized_agreement(config, task, merging, found, bases, channel),
        chat=merging.chat,
    )


def _merge(config: ExportConfig, task: Task, rows: list[Row], channel: Channel) -> _Merging:
    dtype: torch.dtype = getattr(torch, config.dtype)
    encoder = Encoder(load_processor(task, config.model, channel.tell), config.rows, has_images=task.has_images)
    inputs = [encoder.collate([row]) for row in rows]
    channel.tell(f"loading {config.model.base} in 16 bit", 0, 0)
    model = PeftModel.from_pretrained(_load(task, config.model, dtype, channel), str(config.adapter)).eval()
    is_exact = model.dtype == torch.float32
    channel.tell("asking base and adapter", 0, 0)
    tuned = _logits(model, inputs)
    with model.disable_adapter():
        untuned = _logits(model, inputs)
    channel.tell("merging", 0, 0)
    merged = model.merge_and_unload().to(dtype)
    chat = chat_format(encoder, merged)
    channel.tell("saving the merged model", 0, 0)
    processor = load_processor(task, config.model, channel.tell)  # the encoder changed the other one
    save_like_base(merged, processor, config.model, config.output, channel.tell)
    if task.facts.speaks:
        write_end(config.output, encoder, merged.generation_config)
    return _Merging(inputs, tuned, untuned, chat, is_exact, merged.num_parameters())


def _read_back(config: ExportConfig, task: Task, rows: list[Row], channel: Channel) -> tuple[list[Batch], torch.Tensor]:
    """The rows encoded by the saved processor, and the saved model's logits."""
    saved = config.model.model_copy(update={"base": str(config.output), "revision": None})
    encoder = Encoder(load_processor(task, saved, channel.tell), config.rows, has_images=task.has_images)
    inputs = [encoder.collate([row]) for row in rows]
    channel.tell("loading the merged model", 0, 0)
    model = _load(task, saved, getattr(torch, config.dtype), channel).eval()
    channel.tell("asking the merged model", 0, 0)
    return inputs, _logits(model, inputs)


def _load(task: Task, spec: ModelSpec, dtype: torch.dtype, channel: Channel) -> Any:
    """Weights rounded to `dtype`; computing with them in float32 adds no further error."""
    model = load_unquantized(task, spec, dtype, channel.tell)
    fits = 4 * model.num_parameters() < psutil.virtual_memory().available
    return model.float() if fits else model


@torch.no_grad()
def _logits(model: Any, inputs: list[Batch]) -> torch.Tensor:
    """In float32, at the tokens of the answers; of long answers only the first tokens."""
    found = []
    for batch in inputs:
        learned = (batch["labels"][0] != IGNORED).nonzero().flatten()[:_MOST_POSITIONS]
        kept = batch["labels"].shape[1] - int(learned[0]) + 1
        given = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        logits = model(**given, logits_to_keep=kept, use_cache=False).logits[0]
        found.append(logits[(learned - learned[0]).to(logits.device)].float().cpu())
    return torch.cat(found)


def _share_lost(merging: _Merging, found: torch.Tensor) -> float:
    if found.shape != merging.tuned.shape:
        return float("inf")
    changed = (merging.tuned - merging.untuned).square().mean().sqrt()
    off = (found - merging.tuned).square().mean().sqrt()
    return float(off / changed) if changed else 0.0


def _are_alike(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _quantized_agreement(
    config: ExportConfig, task: Task, merging: _Merging, found: torch.Tensor, bases: Bases, channel: Channel
) -> float | None:
    """How often the 4-bit base with the adapter predicts the same token.

    None where there is no 4-bit base, where computing it would take long, and where a head predicts classes instead of
    tokens.
    """
    is_cheap = torch.cuda.is_available() or merging.num_parameters < _CHEAP
    if config.model.quantization == "none" or not task.facts.speaks or not is_cheap:
        return None
    base = bases.get(task, config.model)
    channel.tell("asking the 4-bit base and adapter", 0, 0)
    model = PeftModel.from_pretrained(base.fresh_model(), str(config.adapter)).eval()
    with mixed_precision(model.device, compute_dtype(config.model)):
        quantized = _logits(model, merging.inputs)
    return float((quantized.argmax(dim=1) == found.argmax(dim=1)).float().mean())
