"""Intervals hold the truth about as often as they say, and paired tests find differences that are there, not others."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from hpsearch.metrics import (
    Difference,
    Interval,
    difference,
    interval,
    mean_of,
    row_scores,
    score_difference,
    score_interval,
    scores,
)
from hpsearch.metrics.comparison import Summed
from hpsearch.metrics.overall import _summed

pytestmark = pytest.mark.all_resamples

STUDIES = 60
"""Simulated data sets per test. At a true coverage of 95 %, fewer than 52 hits come about 3 times in 1,000 runs."""

CLASSES = ["red", "white", "platelet"]
WORDS = ["two", "red", "blood", "variants", "and", "one", "white", "cell", "near", "the", "edge"]


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of hits over many studies does not depend on how finely each of them is drawn."""
    monkeypatch.setattr("hpsearch.metrics.comparison.RESAMPLES", 500)
    monkeypatch.setattr("hpsearch.metrics.comparison.SWAPS", 499)


def around(values: Sequence[float], groups: Sequence[int] | None = None, seed: int = 0) -> Interval:
    found = interval(mean_of(values), groups, seed)
    assert found is not None
    return found


def compared(a: Sequence[float], b: Sequence[float], groups: Sequence[int] | None = None, seed: int = 0) -> Difference:
    return difference(mean_of(a), mean_of(b), groups, seed)


def rows_of_classes(draws: np.random.Generator, num_rows: int) -> tuple[list[str], list[str]]:
    """Answers whose chance to be right is 0.9, 0.6 and 0.3 by class: the true balanced accuracy is 0.6."""
    references = draws.choice(CLASSES, size=num_rows, p=[0.5, 0.3, 0.2]).tolist()
    right = draws.random(num_rows) < [(0.9, 0.6, 0.3)[CLASSES.index(label)] for label in references]
    return references, [label if ok else "?" for label, ok in zip(references, right, strict=True)]


def rows_of_text(seed: int, num_rows: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(num_rows)]
    return references, [" ".join(w for w in text.split() if draw.random() < 0.8) for text in references]


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    draws = np.random.default_rng(0)
    hits = 0
    for _ in range(STUDIES):
        bounds = around((draws.random(100) < 0.6).astype(float).tolist())
        hits += bounds.low <= 0.6 <= bounds.high
    assert 52 <= hits < STUDIES


@pytest.mark.usefixtures("fewer_draws")
def test_the_interval_of_balanced_accuracy_covers_the_truth() -> None:
    draws = np.random.default_rng(1)
    hits = 0
    for _ in range(STUDIES):
        bounds = score_interval(*rows_of_classes(draws, 200), "balanced_accuracy")
        assert bounds is not None
        hits += bounds.low <= 0.6 <= bounds.high
    assert 50 <= hits < STUDIES, "percentiles of a few rows per class are a little too narrow"


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(2).normal(0.5, 0.1, size=1_000)
    margin = 1.96 * values.std() / np.sqrt(1_000)
    bounds = around(values.tolist())
    assert bounds.low == pytest.approx(values.mean() - margin, abs=margin / 10)
    assert bounds.high == pytest.approx(values.mean() + margin, abs=margin / 10)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(3).random(50).tolist()
    assert around(values, seed=1) == around(values, seed=1)
    assert around(values, seed=1) != around(values, seed=2)
    assert compared(values, values[::-1], seed=1) == compared(values, values[::-1], seed=1)


@pytest.mark.parametrize("values", [[0.0] * 10, [1.0] * 30, [0.1] * 17])
def test_without_spread_there_is_no_interval(values: list[float]) -> None:
    assert interval(mean_of(values)) is None
    assert interval(mean_of([1000 * value for value in values])) is None
    assert interval(mean_of([*values, 0.5])) is not None
    assert compared(values, values).around is None


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "bleu", "token_f1", "rougeL"])
@pytest.mark.parametrize("num_rows", [10, 40])
def test_an_interval_holds_the_score_and_stays_within_0_and_1(name: str, num_rows: int) -> None:
    for seed in range(3):
        rows = rows_of_text(seed, num_rows) if seed else rows_of_classes(np.random.default_rng(seed), num_rows)
        bounds = score_interval(*rows, name)
        assert bounds is not None
        assert 0 <= bounds.low <= bounds.high <= 1
        rounding = 1e-9  # sums in another order
        assert bounds.low - rounding <= scores(*rows, [name])[name] <= bounds.high + rounding


def test_a_number_outside_its_percentiles_widens_the_interval() -> None:
    # 0 over all rows once, 1 over every resample: as biased as can be
    rows = np.eye(50)
    found = interval(Summed(rows, lambda sums: (sums != 1).any(axis=1) * 1.0))
    assert found == Interval(0.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "bleu"])
def test_resamples_are_scored_as_the_same_rows_would_be(name: str, seed: int) -> None:
    draws = np.random.default_rng(seed)
    references, predictions = rows_of_text(seed, 30) if name == "bleu" else rows_of_classes(draws, 30)
    summed = _summed(references, predictions, name)
    for size in (30, 3):
        rows = draws.integers(30, size=size)
        expected = scores([references[i] for i in rows], [predictions[i] for i in rows], [name])
        times = np.bincount(rows, minlength=30)[None].astype(float)
        assert summed.of(times @ summed.rows) == pytest.approx([expected[name]])


def test_the_interval_of_a_mean_metric_is_that_of_its_row_values() -> None:
    references, predictions = rows_of_text(0, 20)
    values = [row_scores(*pair)["rouge1"] for pair in zip(references, predictions, strict=True)]
    assert score_interval(references, predictions, "rouge1", seed=3) == around(values, seed=3)


def test_a_real_difference_is_shown() -> None:
    draws = np.random.default_rng(4)
    a = draws.random(200)
    found = compared(a.tolist(), (a + draws.normal(0.05, 0.1, size=200)).tolist())
    assert found.shown
    assert found.p_value < 0.001
    assert found.around is not None
    assert 0 < found.around.low < found.difference < found.around.high
    assert found.difference == pytest.approx(0.05, abs=0.03)
    back = compared((a + 0.05).tolist(), a.tolist())
    assert back.shown
    assert back.difference == pytest.approx(-0.05), "b minus a"


def test_pairing_finds_what_two_separate_samples_would_hide() -> None:
    draws = np.random.default_rng(5)
    a = draws.normal(0, 10, size=100)
    b = a + draws.normal(0.5, 1, size=100)
    one, other = around(a.tolist()), around(b.tolist())
    assert max(one.low, other.low) < min(one.high, other.high), "the two intervals overlap"
    assert compared(a.tolist(), b.tolist()).shown


@pytest.mark.usefixtures("fewer_draws")
def test_where_there_is_no_difference_one_is_shown_in_about_one_of_twenty() -> None:
    draws = np.random.default_rng(6)
    false_alarms = sum(compared(draws.random(30).tolist(), draws.random(30).tolist()).shown for _ in range(STUDIES))
    assert 1 <= false_alarms <= 9, "5 % of 60 is 3; more than 9 come about once in 1,000 runs"


def test_equal_values_show_nothing() -> None:
    found = compared([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert (found.difference, found.around, found.p_value, found.shown) == (0.0, None, 1.0, False)


@pytest.mark.parametrize("seed", range(10))
def test_few_rows_are_tested_exactly(seed: int) -> None:
    draws = np.random.default_rng(seed)
    a, b = draws.integers(0, 4, size=(2, 8)) / 4  # ties and zeros among them; quarters have no rounding
    found = compared(a.tolist(), b.tolist())
    flips = [abs((np.array(signs) * (b - a)).sum()) for signs in itertools.product([-1, 1], repeat=8)]
    assert found.p_value == pytest.approx(np.mean(np.array(flips) >= abs((b - a).sum())))
    assert "all swaps" in found.method


@pytest.mark.parametrize(("num_better", "expected"), [(1, 1.0), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_right_and_wrong_answers_are_compared_as_a_sign_test(num_better: int, expected: float) -> None:
    # rows where both are right don't matter, however many there are
    found = compared([0.0] * num_better + [1.0] * 500, [1.0] * (num_better + 500))
    assert found.p_value == pytest.approx(expected)
    assert found.shown is (expected < 0.05)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_in_another_unit_the_same_is_found(unit: float) -> None:
    """A metric of a person's own may have any scale; where swaps tie, rounding decides nothing."""
    for seed in range(30):
        draws = np.random.default_rng(seed)
        a, b = draws.integers(0, 10, size=(2, 12)) / 7
        found, again = difference(mean_of(a), mean_of(b)), difference(mean_of(a * unit), mean_of(b * unit))
        assert again.p_value == found.p_value
        assert (again.around is None) == (found.around is None)
        offset = difference(mean_of(a * unit), mean_of((a + 0.3) * unit))
        assert offset.around is None, "all draws have the same gap"


def test_two_class_metrics_of_the_same_answers_are_two_tests() -> None:
    """They have the same summands, and here no difference; their numbers differ."""
    references, same = ["cat"] * 8 + ["dog"] * 4, ["cat"] * 10 + ["dog", "cow"]
    found = [score_difference(references, same, same, name) for name in ("balanced_accuracy", "macro_f1")]
    assert [each.p_value for each in found] == [1.0, 1.0]
    assert found[0].test != found[1].test


def test_many_rows_are_tested_by_drawing() -> None:
    draws = np.random.default_rng(7)
    found = compared(draws.random(200).tolist(), draws.random(200).tolist())
    assert "9,999 random swaps" in found.method
    assert 0.05 < found.p_value <= 1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values against 1: a paired comparison needs the same rows on both sides"):
        compared([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="there are no values to compare"):
        mean_of([])
    with pytest.raises(ValueError, match="1 of 2 values are not finite numbers"):
        mean_of([0.5, float("nan")])
    with pytest.raises(ValueError, match="there are no rows to score"):
        score_interval([], [], "bleu")
    with pytest.raises(ValueError, match="no metric is called 'f1'"):
        score_interval(["a"], ["a"], "f1")
    with pytest.raises(ValueError, match="1 groups for 2 rows: each row is in one"):
        score_interval(["a", "b"], ["a", "b"], "bleu", [0])


def classes_of_two(draws: np.random.Generator, num_rows: int, better: float) -> tuple[list[str], list[str], list[str]]:
    """References and two models' predictions, right in 0.6 and 0.6 + `better` of the rows."""
    references = draws.choice(CLASSES, size=num_rows, p=[0.5, 0.3, 0.2]).tolist()
    answers = [
        [label if ok else "?" for label, ok in zip(references, draws.random(num_rows) < rate, strict=True)]
        for rate in (0.6, 0.6 + better)
    ]
    return references, answers[0], answers[1]


@pytest.mark.usefixtures("fewer_draws")
def test_without_a_difference_one_in_twenty_tests_of_a_class_metric_shows_one() -> None:
    draws = np.random.default_rng(4)
    shown = sum(score_difference(*classes_of_two(draws, 60, 0.0), "macro_f1").shown for _ in range(20))
    assert shown <= 4, "at a true rate of 5 %, more than 4 of 20 come about 3 times in 1,000 runs"


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "accuracy"])
def test_a_large_difference_is_shown_with_the_truth_in_its_interval(name: str) -> None:
    found = score_difference(*classes_of_two(np.random.default_rng(5), 300, 0.3), name)
    assert found.shown
    assert found.around is not None
    assert 0 < found.around.low < found.difference < found.around.high
    if name != "macro_f1":
        assert found.around.low < 0.3 < found.around.high


def test_a_difference_in_bleu_has_both_signs() -> None:
    references, predictions = rows_of_text(1, 80)
    found = score_difference(references, predictions, references, "bleu")
    back = score_difference(references, references, predictions, "bleu")
    assert found.shown
    assert found.difference == pytest.approx(1 - scores(references, predictions, ["bleu"])["bleu"])
    assert found.around is not None
    assert back.around is not None
    assert (back.around.low, back.around.high) == pytest.approx((-found.around.high, -found.around.low))
    assert back.difference == pytest.approx(-found.difference)


@pytest.mark.parametrize("name", ["exact_match", "bleu", "macro_f1"])
def test_the_same_answers_do_not_differ(name: str) -> None:
    references, predictions = rows_of_text(2, 30)
    found = score_difference(references, predictions, predictions, name)
    assert (found.difference, found.around, found.p_value, found.shown) == (0.0, None, 1.0, False)


@pytest.mark.parametrize("name", ["exact_match", "bleu", "balanced_accuracy"])
def test_three_rows_prove_nothing(name: str) -> None:
    assert not score_difference(["a", "b", "a"], ["?"] * 3, ["a", "b", "a"], name).shown


def test_a_difference_needs_answers_to_every_row() -> None:
    with pytest.raises(ValueError, match="2 references but 1 predictions"):
        score_difference(["a", "b"], ["a", "b"], ["a"], "bleu")
    with pytest.raises(ValueError, match="no metric is called 'blue'"):
        score_difference(["a"], ["a"], ["a"], "blue")
