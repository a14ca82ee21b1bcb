"""How good answers are: numbers per row and over all rows, their uncertainty, and whether two models differ.

Both planes use it. Heavy libraries (nltk, scipy, scikit-learn) load at first use. BERTScore needs a model and is
computed in the training plane: it arrives here as one number per row. Groups of rows are taken as independent of each
other, single rows only where there are no groups.
"""

from hpsearch.metrics.baseline import most_frequent_answers
from hpsearch.metrics.classes import ClassScore, Confusion, class_scores, confusion, in_order
from hpsearch.metrics.comparison import SIGNIFICANCE, Difference, Interval, difference, holm, interval, mean_of
from hpsearch.metrics.groups import FEWEST, Groups, are_enough, grouped, joined
from hpsearch.metrics.overall import COMPUTED, score_difference, score_interval, scores
from hpsearch.metrics.text import normalised, row_scores

__all__ = [
    "COMPUTED",
    "FEWEST",
    "SIGNIFICANCE",
    "ClassScore",
    "Confusion",
    "Difference",
    "Groups",
    "Interval",
    "are_enough",
    "class_scores",
    "confusion",
    "difference",
    "grouped",
    "holm",
    "in_order",
    "interval",
    "joined",
    "mean_of",
    "most_frequent_answers",
    "normalised",
    "row_scores",
    "score_difference",
    "score_interval",
    "scores",
]
