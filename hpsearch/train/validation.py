"""Validation: what a run is asked at each of its reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from hpsearch.metrics import scores
from hpsearch.train.tasks.task import Answer, RowLoss, Skill, batches, mean_loss


@dataclass(frozen=True)
class Validation:
    """What is asked of the validation rows at each report."""

    rows: Dataset
    batch_size: int
    skill: Skill
    dtype: torch.dtype
    metrics: list[str]

    def of(self, model: Any, goes_on: Callable[[int, int], bool] = lambda *_: True) -> dict[str, float] | None:
        """Objective → value, token-weighted over the whole set; None: `goes_on`, asked before each batch, said no."""
        model.eval()
        parts = list(batches(self.rows, self.batch_size))
        losses: list[RowLoss] = []
        said: list[Answer] = []
        for done, part in enumerate(parts):
            if not goes_on(done, len(parts)):
                return None
            if self.metrics:
                found, answers = self.skill.measure(model, part, self.dtype)
                said += answers
            else:
                found = self.skill.losses(model, part, self.dtype)
            losses += found
            if not math.isfinite(mean_loss(found)):
                return {"loss": mean_loss(losses)}
        values = {"loss": mean_loss(losses)}
        if not self.metrics:
            return values
        return values | scores([reference(row) for row in self.rows], [answer.text for answer in said], self.metrics)


def reference(row: Any) -> str:
    """What the data gives as the answer."""
    return str(row["messages"][-1]["content"]).strip()
