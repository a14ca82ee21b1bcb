"""A look at the gradients of each optimizer step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hpsearch.train.trainer import ReportingTrainer

Gradients = dict[str, torch.Tensor]


def spied_gradients(monkeypatch: pytest.MonkeyPatch) -> list[Gradients]:
    """Of each optimizer step, before they are clipped."""
    seen: list[Gradients] = []
    clip = ReportingTrainer._clip_grad_norm

    def spy(trainer: ReportingTrainer, model: Any) -> Any:
        named = model.named_parameters()
        seen.append({name: weight.grad.clone() for name, weight in named if weight.grad is not None})
        return clip(trainer, model)

    monkeypatch.setattr(ReportingTrainer, "_clip_grad_norm", spy)
    return seen
