"""Metrics over all rows by name, and how sure each is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hpsearch.errors import did_you_mean
from hpsearch.metrics.classes import check_rows, class_scores, coded
from hpsearch.metrics.comparison import Difference, Interval, Summed, difference, interval, mean_of
from hpsearch.metrics.text import ROW_METRICS, bleu, corpus_bleu, exact_match_raw

if TYPE_CHECKING:
    from hpsearch.metrics.comparison import Numbers


def scores(references: list[str], predictions: list[str], names: Sequence[str]) -> dict[str, float]:
    """Each named metric over all rows, as `ABOUT` in `spec/metrics.py` describes it.

    Raises:
        ValueError: there are no rows, not as many predictions as references, or a metric is unknown.
    """
    check_rows(references, predictions)
    return {name: _score(references, predictions, name) for name in names}


def score_interval(
    references: list[str], predictions: list[str], name: str, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval | None:
    """The bootstrap interval of one metric of `scores`, by name: groups of rows are resampled, and the metric is
    computed for each resample. None with too few groups, and where all resamples give the same number; without `groups`
    each row is its own.

    Raises:
        ValueError: there are no rows, not as many predictions or groups as references, or the metric is unknown.
    """
    return interval(_summed(references, predictions, name), groups, seed)


def score_difference(
    references: list[str],
    a: list[str],
    b: list[str],
    name: str,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Difference:
    """Whether one metric of predictions `b` differs from that of `a`, on the same rows in the same order.

    Raises:
        ValueError: there are no rows, not as many predictions or groups as references, or the metric is unknown.
    """
    return difference(_summed(references, a, name), _summed(references, b, name), groups, seed)


def _summed(references: list[str], predictions: list[str], name: str) -> Summed:
    check_rows(references, predictions)
    _check_name(name)
    if name in _MEANS:
        return mean_of(_row_values(references, predictions, name))
    return _OVERALL[name].summed(references, predictions)


def _score(references: list[str], predictions: list[str], name: str) -> float:
    _check_name(name)
    if name in _MEANS:
        return sum(_row_values(references, predictions, name)) / len(references)
    return _OVERALL[name].score(references, predictions)


def _row_values(references: list[str], predictions: list[str], name: str) -> list[float]:
    return [_MEANS[name](reference, prediction) for reference, prediction in zip(references, predictions, strict=True)]


def _check_name(name: str) -> None:
    if name == "bertscore":
        raise ValueError("bertscore is not computed here: it comes as a number per row, whose mean is the score")
    if name not in COMPUTED:
        raise ValueError(f"no metric is called {name!r}; {did_you_mean(name, COMPUTED)}")


def _bleu(references: list[str], predictions: list[str]) -> Summed:
    """Corpus BLEU from the rows' n-gram counts: (n, 2 × 4 + 2)."""
    import numpy as np

    pairs = zip(references, predictions, strict=True)
    rows = [bleu().sentence_score(prediction, [reference]) for reference, prediction in pairs]
    counts = np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows], dtype=np.float64)
    return Summed(counts, lambda sums: np.array([_bleu_of(choice) for choice in sums.round().astype(int).tolist()]))


def _bleu_of(counts: list[int]) -> float:
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


def _balanced_accuracy(references: list[str], predictions: list[str]) -> float:
    classes = class_scores(references, predictions)
    return sum(each.accuracy for each in classes) / len(classes)


def _macro_f1(references: list[str], predictions: list[str]) -> float:
    classes = class_scores(references, predictions)
    return sum(each.f1 for each in classes) / len(classes)


def _classes(name: str, references: list[str], predictions: list[str]) -> Summed:
    """balanced_accuracy or macro_f1 over the classes in a choice of rows, from three numbers per class.

    Sparse: a row concerns at most two classes, and there may be as many classes as rows. scikit-learn takes a
    millisecond or two for each choice; a test checks that this gives the same numbers.
    """
    import numpy as np
    from scipy.sparse import csr_array

    rows, every = coded(references, predictions), np.arange(len(references))
    num_classes = len(rows.labels)
    is_right, is_class = rows.references == rows.predictions, rows.predictions < num_classes
    at = np.concatenate([every, every[is_right], every[is_class]])
    columns = [rows.references, rows.references[is_right] + num_classes, rows.predictions[is_class] + 2 * num_classes]
    shape = (len(every), 3 * num_classes)

    def of(sums: Numbers) -> Numbers:
        support, found, predicted = np.split(sums, 3, axis=1)
        if name == "balanced_accuracy":
            of_class = found / np.maximum(support, 1)
        else:
            of_class = 2 * found / np.maximum(support + predicted, 1)
        means: Numbers = of_class.mean(axis=1, where=support > 0)
        return means

    return Summed(csr_array((np.ones(len(at)), (at, np.concatenate(columns))), shape=shape), of)


@dataclass(frozen=True)
class _Overall:
    """A metric over all rows together: (references, predictions) → its value, and the sums for resampling."""

    score: Callable[[list[str], list[str]], float]
    summed: Callable[[list[str], list[str]], Summed]


_OVERALL = {
    "bleu": _Overall(corpus_bleu, _bleu),
    "balanced_accuracy": _Overall(_balanced_accuracy, partial(_classes, "balanced_accuracy")),
    "macro_f1": _Overall(_macro_f1, partial(_classes, "macro_f1")),
}
_MEANS: dict[str, Callable[[str, str], float]] = {
    **{name: metric for name, metric in ROW_METRICS.items() if name not in _OVERALL},
    "accuracy": exact_match_raw,
}
"""Means of one number per row."""
COMPUTED = [*_MEANS, *_OVERALL]
"""Computed here from texts. Any other metric has a stored number per row, and its value is the mean."""
