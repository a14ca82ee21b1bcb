"""The validation loss: one definition for trials, the final run and evaluations."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from hpsearch.train.encoding import IGNORED, Batch


@torch.no_grad()
def token_losses(model: Any, batch: Batch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood in nats of each row's learned tokens, summed, and their number; both of shape (rows,).

    Only the positions from the first learned token on are projected onto the vocabulary. `dtype` is the compute
    dtype of the study.
    """
    device = model.device
    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    labels = batch["labels"].to(device)
    first = int((labels != IGNORED).any(dim=0).nonzero()[0])
    kept = labels.shape[1] - first + 1
    with mixed_precision(device, dtype):
        logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, :-1].float()
    wanted = labels[:, -kept + 1 :]
    losses = cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    return losses.double().sum(dim=1).cpu(), (wanted != IGNORED).sum(dim=1).cpu()


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The autocast in which accelerate runs training steps, for passes outside of a trainer."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
