"""The validation loss: one definition for trials, the final run and evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from hpsearch.train.encoding import IGNORED, Batch


@torch.no_grad()
def mean_token_loss(model: Any, batches: Iterable[Batch], dtype: torch.dtype) -> float:
    """Mean negative log-likelihood in nats per learned token, over all batches together.

    Weighted by tokens, so it does not depend on the batch size. Only the positions from the first learned token
    on are projected onto the vocabulary. `dtype` is the compute dtype of the study.
    """
    device = model.device
    total = torch.zeros((), dtype=torch.float64)
    num_tokens = 0
    for batch in batches:
        inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
        labels = batch["labels"].to(device)
        first = int((labels != IGNORED).any(dim=0).nonzero()[0])
        kept = labels.shape[1] - first + 1
        with mixed_precision(device, dtype):
            logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, :-1].float()
        wanted = labels[:, -kept + 1 :]
        loss = cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=IGNORED, reduction="sum"
        )
        total += loss.double().cpu()
        num_tokens += int((wanted != IGNORED).sum())
    return float(total) / max(1, num_tokens)


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The autocast in which accelerate runs training steps, for passes outside of a trainer."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
