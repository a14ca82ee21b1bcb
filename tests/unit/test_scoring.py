"""Scores whose numbers come with the rows, and not from an answer's text."""

from __future__ import annotations

import pytest

from hpsearch.jobs import AnsweredRow
from hpsearch.results.scoring import corrected, gap_between, score_rows
from hpsearch.spec.metrics import METRICS, Metric

TOLD = Metric(name="told", title="told", over="texts")


def rows(*numbers: float | None) -> list[AnsweredRow]:
    return [
        AnsweredRow(
            id=str(position),
            question="?",
            reference="a",
            prediction="b",
            loss=None,
            num_tokens=0,
            is_cut=False,
            numbers={} if number is None else {"told": number},
            group=position // 2,
        )
        for position, number in enumerate(numbers)
    ]


def test_numbers_of_rows_are_scored_by_their_mean_with_an_interval_over_groups() -> None:
    found = score_rows(rows(*[3.0, -1.0] * 20), [TOLD])["told"]
    assert (found.value, found.low, found.high) == (1.0, None, None)  # of each group it is 1
    found = score_rows(rows(*[3.0, -1.0] * 20, 0.0), [TOLD])["told"]
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high
    assert score_rows(rows(1.0, 2.0), [TOLD])["told"].low is None


def test_what_a_row_lacks_is_no_score() -> None:
    assert score_rows(rows(1.0, None), [TOLD]) == {}
    assert gap_between(TOLD, "tuned", rows(1.0, 2.0), "base", rows(None, 1.0)) is None


def test_two_models_differ_in_their_rows_numbers() -> None:
    gap = gap_between(TOLD, "tuned", rows(*[2.0] * 40), "base", rows(*[0.5] * 40))
    assert gap is not None
    assert (gap.difference, gap.shown) == (pytest.approx(1.5), True)


def test_a_number_of_an_earlier_version_stands_where_numbers_stand_now() -> None:
    (row,) = rows(0.5)
    former = row.model_dump() | {"bertscore": 0.25}
    assert AnsweredRow.model_validate(former).numbers == {"told": 0.5, "bertscore": 0.25}
    assert AnsweredRow.model_validate(former | {"bertscore": None}) == row


def test_metrics_with_the_same_numbers_on_every_row_are_one_test() -> None:
    """Of one-word answers exact match, F1 and BLEU are one; the metrics over classes are others."""
    better = [
        row.model_copy(update={"prediction": "b", "reference": "b" if at % 3 else "c"})
        for at, row in enumerate(rows(*[0.0] * 60))
    ]
    worse = [row.model_copy(update={"prediction": "b" if at < 30 else "c"}) for at, row in enumerate(better)]
    names = ("exact_match", "token_f1", "bleu", "balanced_accuracy", "macro_f1")
    alone = {name: gap_between(METRICS[name], "tuned", better, "base", worse) for name in names}
    once = alone["exact_match"]
    assert once is not None
    found = {gap.metric.name: gap for gap in corrected(list(alone.values()))}
    assert {gap.num_tests for gap in found.values()} == {3}
    assert {found[name].p_value for name in names[:3]} == {min(1.0, 3 * once.p_value)}
    assert "test" not in found["bleu"].model_dump()
    two_words = [row.model_copy(update={"prediction": "b d" if at % 2 else "b"}) for at, row in enumerate(better)]
    others = [gap_between(METRICS[name], "tuned", two_words, "base", worse) for name in names]
    assert {gap.num_tests for gap in corrected(others)} == {5}


def test_two_metrics_are_one_test_where_all_their_numbers_are_the_same() -> None:
    def test_of(tuned: float, base: float) -> str:
        gap = gap_between(TOLD, "tuned", rows(*[tuned] * 20), "base", rows(*[base] * 20))
        assert gap is not None
        return gap.test

    assert test_of(0.3, 0.3) == test_of(0.3, 0.1 + 0.2), "sums of floats differ in their last digits"
    assert test_of(0.3, 0.3) != test_of(0.4, 0.4), "neither pair differs, and the numbers do"
