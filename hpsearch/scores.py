"""What an evaluation or a comparison found: records that `results` makes and `watch` shows."""

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


class Gap(Record):
    """How much better `name` is than `than` in one metric on the same rows, with the ends of the 95 % interval.

    Not `shown`: no difference was found, but one may exist.
    """

    name: str
    than: str
    metric: MetricName
    difference: float
    low: float
    high: float
    p_value: float
    shown: bool


class Evaluation(Record):
    num_rows: int
    rows_sha256: str
    longer_than_limit: int
    metrics: list[MetricName]
    cells: list[CellScores]
    """The most frequent answer first, then base and tuned under each prompt."""
    gaps: list[Gap] = Field([], description="in the first metric: tuned over base and over the most frequent answer")

    def cell(self, name: str) -> CellScores:
        return next(cell for cell in self.cells if cell.name == name)

    @property
    def tuned(self) -> CellScores:
        """The tuned model under the first prompt that was tried: as it was trained, where that is none."""
        return next(cell for cell in self.cells if cell.name.startswith("tuned"))


class ComparedRun(Record):
    """`leaked`: how many of the rows that are compared it was trained on."""

    name: str
    scores: dict[MetricName, Score]
    num_rows: int = Field(description="that it was evaluated on")
    leaked: int


class Comparison(Record):
    """Runs on the same rows, each against the first."""

    num_rows: int
    cell: str
    metrics: list[MetricName]
    runs: list[ComparedRun]
    gaps: list[Gap]

    def gap(self, name: str, metric: MetricName) -> Gap | None:
        return next((gap for gap in self.gaps if (gap.name, gap.metric) == (name, metric)), None)
