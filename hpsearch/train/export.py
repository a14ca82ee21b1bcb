"""Merging an adapter into its base, in 16 bit: merging into 4-bit weights would round away most of what it learned.

It runs on the CPU, in float32 where the memory is there: the card that trained the 4-bit base may be too small for
the whole one. The result is loaded from its files and compared with base and adapter, logit by logit.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch
from datasets import Dataset
from huggingface_hub import snapshot_download
from peft import PeftModel

from hpsearch.errors import FieldError
from hpsearch.jobs import ExportConfig, ExportResult
from hpsearch.spec.model import ModelSpec
from hpsearch.train.bases import Bases, compute_dtype, find_base, load_processor
from hpsearch.train.channel import Channel
from hpsearch.train.chat import chat_format
from hpsearch.train.encoding import IGNORED, Batch, Encoder
from hpsearch.train.loss import mixed_precision
from hpsearch.train.tasks import TASKS, Task

_TOLERANCE = {"bfloat16": 0.03, "float16": 0.01}
"""Of the largest logit. A weight in bfloat16 has 8 bits of mantissa: each is off by up to 0.2 %."""
_CHEAP = 1_000_000_000
"""Parameters up to which the 4-bit base is compared on a CPU too."""
_MOST_POSITIONS = 64
_OWN_FILES = (
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "*processor_config.json",
    "LICENSE*",
    "NOTICE*",
)
"""A base's own tokenizer and processor files: training changes none of them, and other tools know them better than
what transformers 5 writes in their place. It writes no tokenizer.model, which llama.cpp needs for Gemma."""


def export(config: ExportConfig, bases: Bases, channel: Channel) -> ExportResult:
    """Writes the merged model with all of its files to `config.output`.

    Raises:
        FieldError: the base can't be loaded, or is quantized itself.
    """
    task = TASKS[config.task]
    dtype: torch.dtype = getattr(torch, config.dtype)
    processor = load_processor(task, config.model, channel.tell)
    encoder = Encoder(processor, config.rows, has_images=task.has_images)
    rows = list(Dataset.load_from_disk(str(config.check_rows)))
    batches = [encoder.collate([row]) for row in rows]

    channel.tell(f"loading {config.model.base} in 16 bit", 0, 0)
    tuned = PeftModel.from_pretrained(_load(task, config.model, dtype, channel), str(config.adapter)).eval()
    channel.tell("asking base and adapter", 0, 0)
    wanted = _logits(tuned, batches)
    with tuned.disable_adapter():
        untuned = _logits(tuned, batches)
    channel.tell("merging", 0, 0)
    merged = tuned.merge_and_unload().to(dtype)
    chat = chat_format(encoder, merged)
    _save(merged, load_processor(task, config.model, channel.tell), config, channel)
    num_parameters = merged.num_parameters()
    del tuned, merged
    gc.collect()

    channel.tell("loading the merged model", 0, 0)
    saved = config.model.model_copy(update={"base": str(config.output), "revision": None})
    reader = Encoder(load_processor(task, saved, channel.tell), config.rows, has_images=task.has_images)
    read = [reader.collate([row]) for row in rows]
    model = _load(task, saved, dtype, channel).eval()
    channel.tell("asking the merged model", 0, 0)
    found = _logits(model, read)
    del model
    gc.collect()
    reads_alike = all(_alike(a, b) for a, b in zip(batches, read, strict=True))
    is_cheap = torch.cuda.is_available() or num_parameters < _CHEAP
    quantized = _quantized(config, task, bases, batches) if config.model.quantization == "nf4" and is_cheap else None
    largest = float(wanted.abs().max())
    return ExportResult(
        num_positions=len(wanted),
        largest_logit=largest,
        difference=float((found - wanted).abs().max()) if found.shape == wanted.shape else float("inf"),
        tolerance=_TOLERANCE[config.dtype] * largest,
        share_lost=_share_lost(wanted, untuned, found),
        reads_alike=reads_alike,
        quantized_agreement=quantized and float((quantized.argmax(1) == found.argmax(1)).float().mean()),
        chat=chat,
    )
