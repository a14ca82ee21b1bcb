"""Answers as classes: values by hand, scikit-learn's own as the oracle, and what is easily wrong at the edges."""

from __future__ import annotations

import random
import warnings

import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from hpsearch.metrics import class_scores, confusion, in_order, scores

pytestmark = pytest.mark.all_resamples

CLASS_METRICS = ["accuracy", "balanced_accuracy", "macro_f1"]
# three classes; the platelet is never found, one answer is no class at all
REFERENCES = ["red"] * 6 + ["white"] * 3 + ["platelet"]
PREDICTIONS = ["red"] * 5 + ["white"] + ["white", "red", "don't know"] + ["red"]


def drawn(draw: random.Random, num_rows: int, num_classes: int, others: int = 1) -> tuple[list[str], list[str]]:
    references = [f"class {draw.randrange(num_classes)}" for _ in range(num_rows)]
    return references, [f"class {draw.randrange(num_classes + others)}" for _ in range(num_rows)]


@pytest.mark.parametrize(
    "ordered",
    [
        ["0", "1", "2", "10"],
        ["-1", "0", "0.25", "0.5"],
        ["cat", "Dog", "eel"],
        ["grade 2", "grade 10", "none"],
        ["2", "x"],
    ],
)
def test_labels_are_in_the_order_in_which_a_reader_looks_for_them(ordered: list[str]) -> None:
    assert in_order(reversed(ordered)) == ordered


def test_each_class_by_hand() -> None:
    red, white, platelet = class_scores(REFERENCES, PREDICTIONS)
    assert (red.label, red.support) == ("red", 6)
    assert (red.accuracy, red.precision, red.f1) == pytest.approx((5 / 6, 5 / 7, 10 / 13))
    assert (white.label, white.support) == ("white", 3)
    assert (white.accuracy, white.precision, white.f1) == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert (platelet.label, platelet.support) == ("platelet", 1)
    assert (platelet.accuracy, platelet.precision, platelet.f1) == (0.0, 0.0, 0.0), "never predicted"


def test_over_all_classes_by_hand() -> None:
    overall = scores(REFERENCES, PREDICTIONS, CLASS_METRICS)
    assert overall["accuracy"] == pytest.approx(6 / 10)
    assert overall["balanced_accuracy"] == pytest.approx((5 / 6 + 1 / 3 + 0) / 3)
    assert overall["macro_f1"] == pytest.approx((10 / 13 + 2 / 5 + 0) / 3)


def test_confusion_by_hand() -> None:
    counted = confusion(REFERENCES, PREDICTIONS)
    assert counted.labels == ["red", "white", "platelet"]
    assert counted.columns == ["red", "white", "platelet", "other"]
    assert counted.matrix == [[5, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]]
    assert all(type(count) is int for row in counted.matrix for count in row), "JSON knows no numpy integers"


@pytest.mark.parametrize("seed", range(20))
def test_scikit_learn_agrees(seed: int) -> None:
    draw = random.Random(seed)
    references, predictions = drawn(draw, draw.randint(1, 60), draw.randint(1, 8), draw.randint(0, 2))
    overall = scores(references, predictions, CLASS_METRICS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about predictions that are no class: ours must come without
        assert overall["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(references, predictions))
    classes = sorted(set(references))
    expected = f1_score(references, predictions, labels=classes, average="macro", zero_division=0)
    assert overall["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_classes_and_accuracy_tell_the_same(seed: int) -> None:
    references, predictions = drawn(random.Random(seed), 50, 4)
    classes, counted = class_scores(references, predictions), confusion(references, predictions)
    assert [each.label for each in classes] == counted.labels
    assert [each.support for each in classes] == [sum(row) for row in counted.matrix]
    assert [each.support for each in classes] == sorted((each.support for each in classes), reverse=True)
    right = [counted.matrix[i][i] for i in range(len(classes))]
    assert [each.accuracy for each in classes] == pytest.approx(
        [n / each.support for n, each in zip(right, classes, strict=True)]
    )
    assert scores(references, predictions, ["accuracy"])["accuracy"] == pytest.approx(sum(right) / 50)


def test_classes_of_equal_support_are_in_alphabetical_order() -> None:
    assert [each.label for each in class_scores(["c", "a", "b"], ["a"] * 3)] == ["a", "b", "c"]


def test_one_class_alone() -> None:
    assert scores(["cell"] * 4, ["cell"] * 3 + ["?"], CLASS_METRICS) == pytest.approx(
        {"accuracy": 3 / 4, "balanced_accuracy": 3 / 4, "macro_f1": 2 * 3 / (4 + 3)}
    )
    assert confusion(["cell"], ["cell"]).matrix == [[1, 0]]


def test_a_constant_answer_gets_chance_balanced_accuracy() -> None:
    overall = scores(REFERENCES, ["red"] * 10, CLASS_METRICS)
    assert overall["accuracy"] == 0.6
    assert overall["balanced_accuracy"] == pytest.approx(1 / 3)


def test_no_answer_is_a_class() -> None:
    assert scores(["a", "b"], ["", "?"], CLASS_METRICS) == dict.fromkeys(CLASS_METRICS, 0.0)
    assert confusion(["a", "b"], ["", "?"]).matrix == [[0, 0, 1], [0, 0, 1]]


def test_every_row_a_class_of_its_own() -> None:
    names = [f"person {i}" for i in range(200)]
    assert scores(names, names, CLASS_METRICS) == dict.fromkeys(CLASS_METRICS, 1.0)


def test_labels_differ_by_case_and_punctuation_but_not_by_blanks_around() -> None:
    references = ["Red", "red", "red ", "the red"]
    assert [(each.label, each.support) for each in class_scores(references, references)] == [
        ("red", 2),
        ("Red", 1),
        ("the red", 1),
    ]
    assert scores(references, [" Red", "Red", "red", "red"], ["accuracy"])["accuracy"] == 0.5


def test_a_class_named_other_keeps_its_own_column() -> None:
    counted = confusion(["other", "red"], ["other", "blue"])
    assert counted.columns == ["other", "red", "(other)"]
    assert counted.matrix == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("function", [class_scores, confusion])
def test_rows_are_needed(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="no rows"):
        function([], [])
    with pytest.raises(ValueError, match=r"2 .* 1 "):
        function(["a", "b"], ["a"])
