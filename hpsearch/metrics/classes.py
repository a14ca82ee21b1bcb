"""Answers as classes: precision and recall of each class, and the confusion matrix.

A label is a text without the blanks around it; case counts. The classes are the labels of the references. A prediction
that is none of them is wrong, whatever it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.intp]


@dataclass(frozen=True)
class ClassScore:
    """One class. `support`: its rows; `accuracy`: the share of them found (recall); precision 0 if never predicted."""

    label: str
    support: int
    accuracy: float
    precision: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix.

    `labels`: the C classes, most frequent first. `matrix`: C rows (references) of C + 1 columns (predictions: the
    classes in the same order, and last all predictions that are no class).
    """

    labels: list[str]
    matrix: list[list[int]]

    @property
    def columns(self) -> list[str]:
        """The names of the C + 1 columns; the last is "other", in brackets if a class has this name."""
        return [*self.labels, "(other)" if "other" in self.labels else "other"]


@dataclass(frozen=True)
class CodedRows:
    """Rows as numbers: `references` (n,) from 0 to C - 1, `predictions` (n,) from 0 to C, where C is no class."""

    labels: list[str]
    references: Codes
    predictions: Codes


def class_scores(references: list[str], predictions: list[str]) -> list[ClassScore]:
    """Every class of the references, most frequent first, then alphabetically.

    Raises:
        ValueError: there are no rows, or not as many predictions as references.
    """
    from sklearn.metrics import precision_recall_fscore_support

    rows = coded(references, predictions)
    classes = range(len(rows.labels))
    columns = precision_recall_fscore_support(rows.references, rows.predictions, labels=classes, zero_division=0)
    return [
        ClassScore(label, int(support), float(recall), float(precision), float(f1))
        for label, precision, recall, f1, support in zip(rows.labels, *columns, strict=True)
    ]


def in_order(labels: Iterable[str]) -> list[str]:
    """As a reader looks for them: numbers by their value, and also within words, else by the alphabet."""
    found = list(labels)
    try:
        return sorted(found, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(found, key=lambda label: (_parts(label), label))


def _parts(label: str) -> list[str | int]:
    """Words and numbers in turn: grade 9 is before grade 10."""
    parts = re.split(r"(\d+)", label.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)]


def confusion(references: list[str], predictions: list[str]) -> Confusion:
    """The confusion matrix.

    Raises:
        ValueError: there are no rows, or not as many predictions as references.
    """
    from sklearn.metrics import confusion_matrix

    rows = coded(references, predictions)
    columns = range(len(rows.labels) + 1)
    matrix = confusion_matrix(rows.references, rows.predictions, labels=columns)
    return Confusion(rows.labels, matrix[:-1].tolist())


def coded(references: list[str], predictions: list[str]) -> CodedRows:
    """Labels as numbers, in the order of `class_scores`.

    Raises:
        ValueError: there are no rows, or not as many predictions as references.
    """
    import numpy as np

    check_rows(references, predictions)
    expected = [text.strip() for text in references]
    counts = Counter(expected)
    labels = sorted(counts, key=lambda label: (-counts[label], label))
    codes = {label: code for code, label in enumerate(labels)}
    return CodedRows(
        labels,
        np.array([codes[label] for label in expected], dtype=np.intp),
        np.array([codes.get(text.strip(), len(labels)) for text in predictions], dtype=np.intp),
    )


def check_rows(references: list[str], predictions: list[str]) -> None:
    """Raises ValueError: there are no rows, or not as many predictions as references."""
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references but {len(predictions)} predictions: each row needs both")
    if not references:
        raise ValueError("there are no rows to score")
