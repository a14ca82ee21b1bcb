"""Metrics over all rows by name, and how sure each is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpsearch.errors import did_you_mean
from hpsearch.metrics.classes import check_rows, class_scores, coded
from hpsearch.metrics.comparison import (
    Difference,
    Interval,
    interval,
    paired_difference,
    resampled_difference,
    resampled_interval,
)
from hpsearch.metrics.text import ROW_METRICS, bleu, corpus_bleu, exact_match_raw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hpsearch.metrics.comparison import Rows, Statistic

_MEANS: dict[str, Callable[[str, str], float]] = {
    **{name: metric for name, metric in ROW_METRICS.items() if name != "bleu"},
    "accuracy": exact_match_raw,
}
_NAMES = [*_MEANS, "bleu", "balanced_accuracy", "macro_f1"]


def scores(references: list[str], predictions: list[str], names: Sequence[str]) -> dict[str, float]:
    """Each named metric over all rows, from 0 to 1.

    exact_match, exact_match_raw, token_f1, rouge1, rougeL: means over the rows. bleu: over the corpus, not the mean of
    the rows' BLEU. accuracy: the share of labels that are equal (but for blanks around them; case counts).
    balanced_accuracy, macro_f1: plain means over the classes of the references of recall and F1.

    Raises:
        ValueError: there are no rows, not as many predictions as references, or a metric is unknown.
    """
    check_rows(references, predictions)
    return {name: _score(references, predictions, name) for name in names}


def score_interval(references: list[str], predictions: list[str], name: str, seed: int = 0) -> Interval:
    """How sure `scores` is of one metric, of any name: rows are resampled, and the metric computed over each resample.

    Raises:
        ValueError: there are no rows, not as many predictions as references, or the metric is unknown.
    """
    check_rows(references, predictions)
    _check_name(name)
    if name in _MEANS:
        return interval(_row_values(references, predictions, name), seed)
    return resampled_interval(_statistic(references, predictions, name), len(references), seed)


def score_difference(references: list[str], a: list[str], b: list[str], name: str, seed: int = 0) -> Difference:
    """Whether one metric of predictions `b` differs from that of `a`, on the same rows in the same order.

    Raises:
        ValueError: there are no rows, not as many predictions as references, or the metric is unknown.
    """
    check_rows(references, a)
    check_rows(references, b)
    _check_name(name)
    if name in _MEANS:
        return paired_difference(_row_values(references, a, name), _row_values(references, b, name), seed)
    return resampled_difference(_statistic(references * 2, a + b, name), len(references), seed)


def _statistic(references: list[str], predictions: list[str], name: str) -> Statistic:
    """A metric that is no mean over rows, of any choice of rows."""
    if name == "bleu":
        return _BleuOfRows(references, predictions)
    return _ClassesOfRows(references, predictions, name)


def _score(references: list[str], predictions: list[str], name: str) -> float:
    _check_name(name)
    if name in _MEANS:
        return sum(_row_values(references, predictions, name)) / len(references)
    if name == "bleu":
        return corpus_bleu(references, predictions)
    classes = class_scores(references, predictions)
    return sum(each.accuracy if name == "balanced_accuracy" else each.f1 for each in classes) / len(classes)


def _row_values(references: list[str], predictions: list[str], name: str) -> list[float]:
    return [_MEANS[name](reference, prediction) for reference, prediction in zip(references, predictions, strict=True)]


def _check_name(name: str) -> None:
    if name == "bertscore":
        raise ValueError("bertscore is not computed here: it comes as a number per row, whose mean is the score")
    if name not in _NAMES:
        raise ValueError(f"no metric is called {name!r}; {did_you_mean(name, _NAMES)}")


class _BleuOfRows:
    """Corpus BLEU of any choice of rows, from n-gram counts that are taken once."""

    def __init__(self, references: list[str], predictions: list[str]) -> None:
        import numpy as np

        pairs = zip(references, predictions, strict=True)
        rows = [bleu().sentence_score(prediction, [reference]) for reference, prediction in pairs]
        # (n, 2 × 4 + 2)
        self._counts = np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows])

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        import numpy as np

        # one choice after the other: all at once would hold ten numbers for each of their rows
        return np.array([self._of_counts(self._counts[choice].sum(axis=0).tolist()) for choice in rows])

    def _of_counts(self, counts: list[int]) -> float:
        *n_grams, said, expected = counts
        metric = bleu()
        order = metric.max_ngram_order
        score = metric.compute_bleu(
            n_grams[:order],
            n_grams[order:],
            said,
            expected,
            smooth_method=metric.smooth_method,
            effective_order=metric.effective_order,
        )
        return min(score.score / 100, 1.0)


class _ClassesOfRows:
    """balanced_accuracy or macro_f1 of any choice of rows, over the classes that the choice holds.

    scikit-learn takes a millisecond or two for each; a test holds that this gives the same numbers.
    """

    def __init__(self, references: list[str], predictions: list[str], name: str) -> None:
        self._rows = coded(references, predictions)
        self._name = name

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        import numpy as np

        references, predictions = self._rows.references[rows], self._rows.predictions[rows]
        support = self._counted(references)
        found = self._counted(np.where(references == predictions, references, len(self._rows.labels)))
        if self._name == "balanced_accuracy":
            of_class = found / np.maximum(support, 1)
        else:
            of_class = 2 * found / np.maximum(support + self._counted(predictions), 1)
        means: NDArray[np.float64] = of_class.mean(axis=1, where=support > 0)
        return means

    def _counted(self, codes: Rows) -> Rows:
        """How often each choice holds each class: codes (choices, rows) → (choices, C)."""
        import numpy as np

        num_choices, columns = len(codes), len(self._rows.labels) + 1
        cells = codes + columns * np.arange(num_choices)[:, None]
        return np.bincount(cells.ravel(), minlength=num_choices * columns).reshape(num_choices, columns)[:, :-1]
