"""What an evaluation found: records that `results` makes and `watch` shows."""

from __future__ import annotations

from pydantic import Field

from hpsearch.metrics import ClassScore, Confusion
from hpsearch.spec.evaluation import MetricName
from hpsearch.trial import Record


class Score(Record):
    """From 0 to 1; `low` and `high` are the ends of the 95 % bootstrap interval over the rows."""

    value: float
    low: float
    high: float


class CellScores(Record):
    name: str
    scores: dict[MetricName, Score]
    loss: float | None = Field(None, description="nats per token of the references")
    num_cut: int = 0
    classes: list[ClassScore] = Field([])
    confusion: Confusion | None = None


class Evaluation(Record):
    num_rows: int
    rows_sha256: str
    longer_than_limit: int
    metrics: list[MetricName]
    cells: list[CellScores]
    """The most frequent answer first, then base and tuned under each prompt."""

    def cell(self, name: str) -> CellScores:
        return next(cell for cell in self.cells if cell.name == name)
