"""The records of an evaluation and of a comparison: `results` makes them and `watch` shows them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import AliasChoices, Field

from hpsearch.metrics import ClassScore, Confusion, Interval, are_enough, in_order
from hpsearch.spec.metrics import Metric, NamedMetric
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import Record

MOST_FREQUENT = "most frequent answer"
"""The name of the baseline among the variants: it knows the questions and answers of training and ignores all else."""
ABOUT_MOST_FREQUENT = "most frequent answer: always the most frequent training answer to the same question."


class Units(Record):
    """What intervals and tests treat as independent: each is drawn or swapped with all of its rows."""

    name: str = Field(description="rows, images, or groups with their column")
    num: int
    effective: float = Field(description="equivalent number of equal-sized units")

    @property
    def text(self) -> str:
        """1 image, 120 images, 31 groups (column patient)"""
        return f"1 {self.name.replace('s', '', 1)}" if self.num == 1 else f"{self.num:,} {self.name}"

    @property
    def all_alike(self) -> str:
        """Why there may be no interval although they are enough."""
        return f"Where each draw of {self.text} gives the same number, no interval is shown: it would be 0 wide."

    @property
    def are_enough(self) -> bool:
        return are_enough(self.effective)


class Score(Record):
    """`low` and `high` are the ends of the 95 % bootstrap interval. Both are None where there are too few units for
    one, or all score the same.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> Interval | None:
        return _between(self.low, self.high)


class VariantScores(Record):
    name: str
    scores: dict[str, Score]
    loss: float | None = Field(None, description="nats per token of the references")
    num_cut: int = 0
    classes: list[ClassScore] = Field([])
    confusion: Confusion | None = None

    @property
    def ordered_classes(self) -> list[ClassScore]:
        """`classes`, which have the most frequent first, as a reader looks for them."""
        found = {each.label: each for each in self.classes}
        return [found[label] for label in in_order(found)]


class Gap(Record):
    """How much better `name` is than `than` in one metric on the same rows, with the ends of the 95 % interval.

    `low` and `high` are None as in `Score`. `p_value` is corrected (Holm) for being one of `num_tests`;
    gaps of the same `test` are one. Not
    `shown`: no difference was found, but one may exist.
    """

    name: str
    than: str
    metric: NamedMetric
    difference: float
    low: float | None
    high: float | None
    p_value: float
    shown: bool
    num_tests: int = 1
    test: str = Field("", exclude=True)

    @property
    def interval(self) -> Interval | None:
        return _between(self.low, self.high)


class Evaluation(Record):
    num_rows: int
    rows_sha256: str
    longer_than_limit: int
    metrics: list[NamedMetric]
    variants: list[VariantScores] = Field(validation_alias=AliasChoices("variants", "cells"))
    """The most frequent answer first, where answers are compared; then base, unless it was left out, and tuned with
    each prompt.
    """
    gaps: list[Gap] = Field([], description="in the first metric: tuned over base and over the most frequent answer")
    notes: list[str] = Field([], description="metrics of the person's own that could not be computed, and why")
    units: Units | None = Field(None, description="None: by an earlier hpsearch, which took rows as independent")

    def variant(self, name: str) -> VariantScores:
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def guess(self) -> VariantScores | None:
        return next((variant for variant in self.variants if variant.name == MOST_FREQUENT), None)

    @property
    def models(self) -> list[VariantScores]:
        return [variant for variant in self.variants if variant.name != MOST_FREQUENT]

    @property
    def resampled(self) -> Units:
        return self.units or Units(name="rows", num=self.num_rows, effective=self.num_rows)

    @property
    def base(self) -> VariantScores | None:
        """The base model with the prompt of `tuned`; None: it was not evaluated."""
        name = self.tuned.name.replace("tuned", "base", 1)
        return next((variant for variant in self.variants if variant.name == name), None)

    @property
    def tuned(self) -> VariantScores:
        """The tuned model with the first prompt; none, as in training, if that was tried."""
        return next(variant for variant in self.variants if variant.name.startswith("tuned"))


class ComparedRun(Record):
    """`leaked`: how many of the compared rows it was trained on."""

    name: str
    scores: dict[str, Score]
    num_rows: int = Field(description="that it was evaluated on")
    leaked: int
    budget: BudgetSpec = Field(description="of its training")


class Comparison(Record):
    """Runs on the same rows, each compared with the first."""

    num_rows: int
    variant: str
    metrics: list[NamedMetric]
    runs: list[ComparedRun]
    gaps: list[Gap]
    units: Units

    def gap(self, name: str, metric: Metric) -> Gap | None:
        return next((gap for gap in self.gaps if (gap.name, gap.metric) == (name, metric)), None)


def alike(metrics: Sequence[Metric], scored: Sequence[VariantScores] | Sequence[ComparedRun]) -> list[list[Metric]]:
    """The metrics in groups that have the same numbers throughout: of answers of one word, exact match and F1 are
    one. The first of each group is enough to show.
    """
    groups: dict[tuple[object, ...], list[Metric]] = {}
    for metric in metrics:
        numbers = [_rounded(each.scores.get(metric.name)) for each in scored]
        groups.setdefault((metric.unit, metric.direction, *numbers), []).append(metric)
    return list(groups.values())


def _rounded(score: Score | None) -> tuple[float, ...] | None:
    """Sums of floats differ in their last digits."""
    if score is None:
        return None
    return tuple(round(number, 6) for number in (score.value, score.low, score.high) if number is not None)


def _between(low: float | None, high: float | None) -> Interval | None:
    """An earlier hpsearch stored ends that are equal, where all units score the same."""
    return None if low is None or high is None or low == high else Interval(low, high)
