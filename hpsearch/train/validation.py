"""Validation: the losses and metrics that are computed at each report, on rows that are encoded once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from datasets import Dataset

from hpsearch.metrics import COMPUTED, scores
from hpsearch.spec.metrics import LOSS, METRICS
from hpsearch.train.encoding import Encoded
from hpsearch.train.own_metrics import OwnMetric, untouched_randomness
from hpsearch.train.steps import MicroBatch, in_parts
from hpsearch.train.tasks.task import Answer, Method, RowLoss, mean_loss

KEPT_BYTES = 256 * 2**20
"""Memory of encoded rows that are kept between reports. Image features are mapped from disk and don't count."""
_ROW_BYTES = 16 * 2**10
"""Overhead of a row besides its tensors: objects, and memory mappings, of which Linux allows a process 65,530."""


class GoesOn(Protocol):
    """Called with the progress of a validation; returns whether to continue."""

    def __call__(self, done: int, total: int, doing: str = "validating", /) -> bool: ...


Measured = tuple[list[RowLoss], list[Answer]]


@dataclass(frozen=True)
class Validation:
    """The evaluation of the validation rows at each report."""

    rows: Dataset
    batch: MicroBatch
    method: Method
    dtype: torch.dtype
    metrics: list[str]
    own: dict[str, OwnMetric] = field(default_factory=dict)
    """The person's own among `metrics`."""
    _by_length: list[int] = field(default_factory=list)
    """Positions of the rows, the longest first: batches need little padding, and an out-of-memory error comes at once.
    The order depends on the data only, so that batches are the same at each report, in any process.
    """
    _kept: dict[int, Encoded] = field(default_factory=dict)

    def of(self, model: Any, goes_on: GoesOn = lambda *_: True) -> dict[str, float] | None:
        """Objective → value, token-weighted over the whole set; None: `goes_on`, called before each batch, returned
        False.

        Raises:
            MetricFailed: a person's own metric returned no valid number for a row.
        """
        model.eval()
        if not self._by_length:
            lengths = [self.method.num_tokens(row) for row in self.rows]
            self._by_length.extend(sorted(range(len(lengths)), key=lambda position: -lengths[position]))
        losses: dict[int, RowLoss] = {}
        said: dict[int, Answer] = {}
        if not goes_on(0, len(self.rows)):
            return None
        for part, (found, answers) in in_parts(self._by_length, self.batch, lambda part: self._measure(model, part)):
            losses |= zip(part, found, strict=True)
            said |= zip(part, answers, strict=bool(self.metrics))
            if not math.isfinite(mean_loss(found)):
                return {LOSS.name: mean_loss(list(losses.values()))}
            if len(losses) < len(self.rows) and not goes_on(len(losses), len(self.rows)):
                return None
        in_order = range(len(self.rows))
        values = {LOSS.name: mean_loss([losses[position] for position in in_order])}
        if not self.metrics:
            return values
        counted = self._with_own([said[position] for position in in_order], goes_on)
        return None if counted is None else values | self._scores(counted)

    def _with_own(self, answers: list[Answer], goes_on: GoesOn) -> list[Answer] | None:
        """Adds the person's own metrics, in the rows' order; None: `goes_on` returned False."""
        if not self.own:
            return answers
        counted = []
        with untouched_randomness():
            for done, (row, answer) in enumerate(zip(self.rows, answers, strict=True)):
                if not goes_on(done, len(answers), f"computing {', '.join(self.own)}"):
                    return None
                found = {name: own.of(row["id"], reference(row), answer.text) for name, own in self.own.items()}
                counted.append(replace(answer, numbers=answer.numbers | found))
        return counted

    def _scores(self, said: list[Answer]) -> dict[str, float]:
        """Over all rows, in order: computed from their texts, or the mean of their stored numbers."""
        computed = [name for name in self.metrics if name in COMPUTED]
        values = {
            name: sum(answer.numbers[name] for answer in said) / len(said)
            for name in self.metrics
            if name not in computed
        }
        texts = [answer.text for answer in said]
        return values | (scores([reference(row) for row in self.rows], texts, computed) if computed else {})

    def _measure(self, model: Any, positions: list[int]) -> Measured:
        rows = [self._kept.get(position) or self.method.encode(self.rows[position]) for position in positions]
        if self.metrics:
            measured = self.method.measure(model, rows, self.dtype, with_texts=self._with_texts)
        else:
            measured = self.method.losses(model, rows, self.dtype), []
        self._keep(positions, rows)
        return measured

    @property
    def _with_texts(self) -> bool:
        """Whether a metric needs the model's texts."""
        return any(name not in METRICS or METRICS[name].over != "preferences" for name in self.metrics)

    def _keep(self, positions: list[int], rows: list[Encoded]) -> None:
        """Keeps as many as fit: the others are encoded again at each report."""
        held = sum(row.num_bytes + _ROW_BYTES for row in self._kept.values())
        for position, row in zip(positions, rows, strict=True):
            held += 0 if position in self._kept else row.num_bytes + _ROW_BYTES
            if held > KEPT_BYTES:
                return
            self._kept[position] = row


def reference(row: Any) -> str:
    """The answer in the data."""
    return str(row["messages"][-1]["content"]).strip()
