"""Classification: a two-layer head on the mean of the last hidden states, trained beside the adapter.

The untuned base has no head. What it is compared by is the class name that it finds likeliest to follow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from hpsearch.spec.model import HeadSpec
from hpsearch.train.encoding import IGNORED, Batch, Encoded, Encoder, Row
from hpsearch.train.loss import mixed_precision, on_device, token_losses
from hpsearch.train.tasks.task import Answer, RowLoss
from hpsearch.trial import AnswersConfig

_HEAD = "classification_head"
_FILE = "head.safetensors"


class Classification:
    """Learns the class of a row."""

    has_own_loss = True

    def __init__(self, encoder: Encoder, answers: AnswersConfig, train_rows: Dataset | None) -> None:
        self._encoder = encoder
        self._spec = answers.head
        self._classes = answers.classes
        self._weights = None if train_rows is None else class_weights(train_rows["label"], self._classes, self._spec)

    def extend(self, model: Any) -> None:
        width = model.get_input_embeddings().weight.shape[1]
        head = make_head(self._spec, width, len(self._classes))
        model.add_module(_HEAD, head.to(model.device))

    def encode(self, row: Row) -> Encoded:
        """The prompt; its label is the class number, if the row has an answer."""
        label = IGNORED if row["label"] is None else self._classes.index(row["label"])
        return replace(self._encoder.encode(row).prompt(), labels=torch.tensor([label]))

    def num_tokens(self, row: Row) -> int:
        return self._encoder.num_tokens(row)

    def batch(self, rows: list[Encoded]) -> Batch:
        """`labels` has shape (rows,)."""
        return self._encoder.prompt_batch(rows) | {"labels": torch.cat([row.labels for row in rows])}

    def num_items(self, rows: list[Encoded]) -> int:
        return len(rows)

    def shared(self, model: Any, rows: list[Encoded], size: int) -> Batch:
        del model, rows, size
        return {}

    def training_loss(self, model: Any, batch: Batch, num_items: int) -> torch.Tensor:
        """Weighted per row and divided by the number of rows, as in Cui et al.

        Not torch's weighted mean, which divides by the weights of the batch: in a batch of one row they would cancel
        out.
        """
        labels = batch["labels"].to(model.device)
        losses = cross_entropy(logits_of(model, batch), labels, reduction="none")
        if self._weights is not None:
            losses = losses * self._weights.to(model.device)[labels]
        return losses.sum() / num_items

    def losses(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> list[RowLoss]:
        return self.measure(model, rows, dtype)[0]

    @torch.no_grad()
    def answers(self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, is_tuned: bool) -> list[Answer]:
        if not is_tuned:
            return self._answers(self._likeliest_names(model, rows, dtype))
        with mixed_precision(model.device, dtype):
            logits = logits_of(model, self._encoder.prompt_batch(rows))
        return self._answers(logits.argmax(dim=1))

    @torch.no_grad()
    def measure(
        self, model: Any, rows: list[Encoded], dtype: torch.dtype, *, with_texts: bool = True
    ) -> tuple[list[RowLoss], list[Answer]]:
        """Losses are one per row and unweighted, so that trials with different weights are comparable."""
        del with_texts
        batch = self.batch(rows)
        with mixed_precision(model.device, dtype):
            logits = logits_of(model, batch)
        losses = cross_entropy(logits, batch["labels"].to(model.device), reduction="none")
        return [RowLoss(loss, 1) for loss in losses.tolist()], self._answers(logits.argmax(dim=1))

    def _answers(self, chosen: torch.Tensor) -> list[Answer]:
        return [Answer(self._classes[position]) for position in chosen.tolist()]

    def _likeliest_names(self, model: Any, rows: list[Encoded], dtype: torch.dtype) -> torch.Tensor:
        """By the mean log-likelihood of each name's tokens, so that long names are not at a disadvantage."""
        per_class = []
        for name in self._classes:
            named = [self._encoder.with_answer(_without_label(row), name) for row in rows]
            totals, counts = token_losses(model, self._encoder.batch(named), dtype)
            per_class.append(totals / counts)
        return torch.stack(per_class).argmin(dim=0)

    def save(self, model: Any, folder: Path) -> None:
        head = getattr(model, _HEAD)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}, folder / _FILE
        )

    def load(self, model: Any, folder: Path) -> None:
        getattr(model, _HEAD).load_state_dict(load_file(folder / _FILE))


def _without_label(row: Encoded) -> Encoded:
    """The row as a language model's input: its prompt, of which no token is learned."""
    return replace(row, labels=torch.full_like(row.tokens["input_ids"], IGNORED))


def make_head(spec: HeadSpec, width: int, num_classes: int) -> torch.nn.Module:
    """(rows, width) → (rows, classes)."""
    return torch.nn.Sequential(
        torch.nn.Dropout(spec.dropout),
        torch.nn.Linear(width, spec.hidden),
        torch.nn.GELU(),
        torch.nn.Dropout(spec.dropout),
        torch.nn.Linear(spec.hidden, num_classes),
    )


def logits_of(model: Any, batch: Batch) -> torch.Tensor:
    """(rows, classes), in float32. The language head is not computed."""
    inputs = on_device(batch, model.device)
    hidden = model.get_base_model().base_model(**inputs, use_cache=False).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    logits: torch.Tensor = getattr(model, _HEAD)(pooled)
    return logits.float()


def class_weights(labels: list[str], classes: list[str], spec: HeadSpec) -> torch.Tensor | None:
    """(classes,), with mean 1 over the classes that have rows; None: all rows weigh the same.

    From the training rows only. A class without rows has no weight.
    """
    beta = spec.balance_beta
    if beta is None:
        return None
    counts = Counter(labels)
    weights = [(1 - beta) / (1 - beta ** counts[name]) if counts[name] else 0.0 for name in classes]
    return torch.tensor(weights) * len(counts) / sum(weights)
