"""What is trained: a tiny base on a CPU, the shape of a real one where CUDA is there. Nothing is downloaded."""

from __future__ import annotations

import gc
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.comparison import Say

NUM_TRAIN_ROWS = 64
NUM_VALIDATION_ROWS = 8
VOCABULARY = ("benign", "malignant", "red", "white", "low", "high")


@dataclass(frozen=True)
class Shape:
    """A base, how long its trials are (an answer has `words` words), and how many of them the benchmarks take."""

    name: str
    base: str
    words: int
    steps: int
    warm_base_pairs: int
    growth_trials: int

    def write_rows(self, file: Path) -> None:
        """Questions with answers of `words` random words, as JSON lines: rows to train, validate and test with."""
        draw = random.Random(0)
        lines = []
        for number in range(NUM_TRAIN_ROWS + 2 * NUM_VALIDATION_ROWS):
            answer = " ".join(draw.choice(VOCABULARY) for _ in range(self.words))
            lines.append(json.dumps({"question": f"What is row {number}?", "answer": answer}))
        file.write_text("\n".join(lines))


def chosen(folder: Path, say: Say) -> Shape:
    """The shape for this machine; a base that is built lands in `folder`."""
    import torch

    if torch.cuda.is_available():
        say("building a base of Qwen2.5-0.5B's shape with random weights")
        base = _build_half_a_billion(folder / "base")
        return Shape(
            "Qwen2.5-0.5B's shape, random weights", str(base), words=100, steps=20, warm_base_pairs=7, growth_trials=40
        )
    from hpsearch.train.tiny import ensure_tiny

    say("tiny:qwen2, which is pretrained first where it is not cached yet")
    base = ensure_tiny("tiny:qwen2", lambda *_: None)
    return Shape("tiny:qwen2", str(base), words=8, steps=4, warm_base_pairs=5, growth_trials=40)


def half_a_billion() -> tuple[Any, Any]:
    """The configuration of Qwen/Qwen2.5-0.5B, and the tiny tokenizer (whose ids are few)."""
    from transformers import Qwen2Config

    from hpsearch.train.tiny.tokenizers import qwen_tokenizer

    tokenizer = qwen_tokenizer()
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return config, tokenizer


def _build_half_a_billion(folder: Path) -> Path:
    """Saves a random model of it."""
    import torch
    from transformers import Qwen2ForCausalLM

    config, tokenizer = half_a_billion()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).bfloat16()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    gc.collect()
    return folder
