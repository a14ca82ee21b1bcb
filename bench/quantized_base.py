"""Seconds to load a base: from the 4-bit copy that is kept on disk, against quantizing the 16-bit weights again.

The reason: a process that replaces another one need not quantize the same base again. The
base is a Qwen2 with random weights, of the shape of Qwen2.5-0.5B with a third of its layers.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from bench.comparison import Comparison, Finding, Say, Side

NUM_PAIRS = 5


def measure(say: Say) -> list[Finding]:
    from hpsearch.spec.model import ModelSpec
    from hpsearch.train import quantized

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_base(folder / "base")
        spec = ModelSpec(base=str(folder / "base"), dtype="bfloat16")
        read_s, anew_s = [], []
        with patch.object(quantized, "quantized_bases", lambda: folder / "quantized"):
            _seconds(spec, is_read=False)  # writes the copy
            for pair in range(NUM_PAIRS):
                read_s.append(_seconds(spec, is_read=True))
                with patch.object(quantized, "place_of", lambda *_: None):
                    anew_s.append(_seconds(spec, is_read=False))
                say(f"pair {pair + 1}: from the copy {read_s[-1]:.2f} s, anew {anew_s[-1]:.2f} s")
    sides = Side("from the kept copy", read_s), Side("quantized anew", anew_s)
    return [Comparison("seconds to load a base of 0.26 B parameters in 4 bit", "s", *sides)]


def _write_base(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from hpsearch.spec.model import ModelSpec
    from hpsearch.train.bases import find_base

    shape = {"vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 8}
    config = Qwen2Config(**shape, num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True)
    torch.manual_seed(0)
    Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tiny = find_base(ModelSpec(base="tiny:qwen2"), lambda *_: None)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)


def _seconds(spec: object, *, is_read: bool) -> float:
    from hpsearch.train.bases import load_base
    from hpsearch.train.memory import give_back
    from hpsearch.train.tasks import TASKS

    give_back()
    started = time.perf_counter()
    base = load_base(TASKS["text-sft"], spec, lambda *_: None)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    assert base.model.hf_quantizer.pre_quantized is is_read  # type: ignore[union-attr]
    return seconds
