"""The table of metrics: for each its data, its direction, how it is shown, and a description. One row each.

Search, pruner, tables, plots and reports use the row. How a metric is computed is in `metrics`, or in the training
plane if it needs the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from hpsearch.errors import cut, did_you_mean
from hpsearch.spec.base import Spec

Over = Literal["losses", "texts", "classes", "preferences"]


class Metric(Spec):
    """`low` and `high`: the ends of its range, if it has any."""

    name: str
    title: str
    over: Over
    direction: Literal["minimize", "maximize"] = "maximize"
    low: float | None = None
    high: float | None = None
    unit: Literal["share", "nats"] | None = None
    is_mean: bool = True
    """The mean of one number per row; else a number over all rows together."""
    needs_model: bool = False
    """Needs another model than the trained one: too slow for every report, and computed only if the study names it."""
    needs_pairs: bool = False
    """Compares two answers to each question."""
    sha256: str | None = None
    """Checksum of its file, for the person's own metrics (`own_metrics`)."""

    @property
    def is_own(self) -> bool:
        return self.sha256 is not None

    def is_better(self, value: float, than: float) -> bool:
        return value < than if self.direction == "minimize" else value > than

    def cost(self, value: float) -> float:
        """Lower is better."""
        return value if self.direction == "minimize" else -value


def _share(name: str, over: Over, about: str, **more: bool) -> tuple[Metric, str]:
    row = Metric(name=name, title=name.replace("_", " "), over=over, low=0.0, high=1.0, unit="share", **more)
    return row, about


LOSS = Metric(
    name="loss", title="validation loss", over="losses", direction="minimize", low=0.0, unit="nats", is_mean=False
)
TEXT_LOSS = Metric(name="text_loss", title="loss per text", over="losses", direction="minimize", low=0.0, unit="nats")
"""The metric for rows without a question: nats per token of each text. Can't be named in a file."""
_ROWS = [
    (LOSS, "Mean loss in nats per learned token; of classes and preferences per row."),
    _share(
        "exact_match",
        "texts",
        "Share of answers equal to the reference after SQuAD's normalizing: case, punctuation and articles.",
    ),
    _share("exact_match_raw", "texts", "Share of answers equal to the reference, ignoring whitespace around them."),
    _share("token_f1", "texts", "Mean F1 of the words that answer and reference share, normalized as for exact_match."),
    _share("rouge1", "texts", "Mean F-measure of shared words (ROUGE-1), without stemming, for text in any script."),
    _share("rougeL", "texts", "Mean F-measure of the longest common subsequence of words (ROUGE-L), without stemming."),
    _share(
        "bleu",
        "texts",
        "BLEU over all rows together (sacrebleu, 13a), up to the longest n-grams that there are.",
        is_mean=False,
    ),
    _share("accuracy", "classes", "Share of rows with the right class; case counts."),
    _share("balanced_accuracy", "classes", "Mean recall over the classes.", is_mean=False),
    _share("macro_f1", "classes", "Mean over the classes of F1.", is_mean=False),
    _share(
        "bertscore",
        "texts",
        "Mean F1 of BERTScore, with the model that evaluation.bertscore_model names.",
        needs_model=True,
    ),
    _share(
        "ranking_accuracy",
        "preferences",
        "Share of pairs whose chosen answer has a higher likelihood than the rejected one.",
        needs_pairs=True,
    ),
    _share(
        "reward_accuracy",
        "preferences",
        "Share of pairs, or of single answers, that the implicit reward ranks as the data does.",
    ),
    (
        Metric(name="reward_margin", title="reward margin", over="preferences"),
        "Mean of chosen minus rejected implicit reward: beta times the log-ratio to the reference.",
    ),
]
METRICS: dict[str, Metric] = {row.name: row for row, _ in _ROWS}
ABOUT = {row.name: about for row, about in _ROWS}
"""Name → description, for people."""


def find_metric(name: str, others: Iterable[str] = ()) -> Metric:
    """Raises ValueError with the nearest names, including those of `others`."""
    if name not in METRICS:
        raise ValueError(f"there is no metric {cut(repr(name))}; {did_you_mean(name, [*METRICS, *others])}")
    return METRICS[name]


def _by_name(value: Any) -> Any:
    return find_metric(value) if isinstance(value, str) else value


NamedMetric = Annotated[Metric, BeforeValidator(_by_name)]
"""Files of earlier versions contain its name alone."""
