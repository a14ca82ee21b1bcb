"""Answers: greedy, in batches, padded on the left, the prompt cut off by its length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from hpsearch.train.encoding import Encoder, Row
from hpsearch.train.loss import mixed_precision


@torch.no_grad()
def answers(
    model: Any, encoder: Encoder, rows: list[Row], batch_size: int, max_new_tokens: int, dtype: torch.dtype
) -> Iterator[str]:
    """What the model says to each row's prompt, in order."""
    for start in range(0, len(rows), batch_size):
        batch = encoder.collate_prompts(rows[start : start + batch_size])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        with mixed_precision(model.device, dtype):
            generated = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=encoder.tokenizer.pad_token_id,
            )
        said = generated[:, inputs["input_ids"].shape[1] :]
        yield from (text.strip() for text in encoder.tokenizer.batch_decode(said, skip_special_tokens=True))
