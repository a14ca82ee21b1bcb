"""How good answers are: numbers per row and over all rows, their uncertainty, and whether two models differ.

Both planes may import this room; it imports only `spec` and `errors`, and never torch. Heavy libraries (nltk, scipy,
scikit-learn) load at the first use, not here. BERTScore needs a model and is computed elsewhere: it arrives as a number
per row, for `interval` and `paired_difference`. The rows are taken as independent of each other.
"""

from hpsearch.metrics.baseline import most_frequent_answers
from hpsearch.metrics.classes import ClassScore, Confusion, class_scores, confusion
from hpsearch.metrics.comparison import Difference, Interval, interval, paired_difference
from hpsearch.metrics.overall import score_difference, score_interval, scores
from hpsearch.metrics.text import normalised, row_scores

__all__ = [
    "ClassScore",
    "Confusion",
    "Difference",
    "Interval",
    "class_scores",
    "confusion",
    "interval",
    "most_frequent_answers",
    "normalised",
    "paired_difference",
    "row_scores",
    "score_difference",
    "score_interval",
    "scores",
]
