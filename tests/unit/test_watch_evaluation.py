"""Evaluations in tables for the terminal, and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpsearch.evaluation import Evaluation, Gap, Score, Units, VariantScores, alike
from hpsearch.metrics import ClassScore
from hpsearch.spec.metrics import METRICS
from hpsearch.watch.evaluation import class_table, evaluation_table, evaluation_words
from tests.unit.picture_fixtures import without_base
from tests.unit.view_fixtures import cells, seen


def cell(name: str, value: float, **more: Any) -> VariantScores:
    score = Score(value=value, low=value - 0.04, high=value + 0.04)
    return VariantScores(name=name, scores={"exact_match": score, "bleu": score}, **more)


@pytest.fixture
def evaluation() -> Evaluation:
    """Base and tuned model under two prompts, on three rows of two classes."""
    classes = [ClassScore("[/cat]", 2, 1.0, 0.5, 0.6667), ClassScore("dog", 1, 0.0, 0.0, 0.0)]
    gap = {"metric": "exact_match", "low": 0.1, "high": 0.7, "p_value": 0.0123, "num_tests": 3}
    return Evaluation(
        num_rows=3,
        rows_sha256="f00",
        longer_than_limit=0,
        metrics=["exact_match", "bleu"],
        variants=[
            cell("most frequent answer", 0.5),
            cell("base", 0.104, loss=2.34567),
            cell("base-adaptive", 0.2, loss=2.5, num_cut=7),
            cell("tuned", 0.9, loss=1.0, classes=classes),
            cell("tuned-adaptive", 0.8, loss=1.25),
        ],
        gaps=[
            Gap(name="tuned", than="base", difference=0.4, shown=True, **gap),
            Gap(name="tuned", than="most frequent answer", difference=-0.3, shown=True, **gap),
            Gap(name="tuned", than="nobody", difference=0.2, shown=False, **gap),
        ],
        units=Units(name="images", num=12, effective=12),
    )


def test_an_evaluation_is_shown_side_by_side(evaluation: Evaluation) -> None:
    shown = cells(seen(evaluation_table(evaluation, "vlm-sft"), width=80))
    assert shown[:3] == [["most"], ["frequent", "base", "tuned"], ["answer", "base", "adaptive", "tuned", "adaptive"]]
    assert shown[3:5] == [
        ["exact", "match", "50.0%", "10.4%", "20.0%", "90.0%", "80.0%"],
        ["46.0–54.0", "6.4–14.4", "16.0–24.0", "86.0–94.0", "76.0–84.0"],
    ]
    assert shown[-2:] == [["loss", "(nats", "2.3457", "2.5000", "1.0000", "1.2500"], ["per", "token)"]]
    assert cells(seen(evaluation_table(evaluation, "vlm-classify"), width=80))[-1] == ["per", "row)"]
    wide = seen(evaluation_table(evaluation, "vlm-sft", is_narrow=False))
    assert ["most", "frequent", "answer", "base", "base-adaptive", "tuned", "tuned-adaptive"] in cells(wide)
    assert "loss (nats per token)" in wide


def test_metrics_with_the_same_numbers_are_shown_once(evaluation: Evaluation) -> None:
    assert "bleu" not in seen(evaluation_table(evaluation, "vlm-sft"))
    first, *others = evaluation.variants
    better = first.model_copy(update={"scores": {**first.scores, "bleu": Score(value=0.7)}})
    differing = evaluation.model_copy(update={"variants": [better, *others]})
    assert "bleu" in seen(evaluation_table(differing, "vlm-sft"))
    assert "The same numbers" not in evaluation_words(differing, Path("scores"))
    last_digits = {**first.scores, "bleu": Score(value=0.5 + 1e-12, low=0.46, high=0.54)}
    summed = evaluation.model_copy(update={"variants": [first.model_copy(update={"scores": last_digits}), *others]})
    assert "The same numbers as exact match: bleu." in evaluation_words(summed, Path("scores"))
    unlike = [METRICS["exact_match"], METRICS["reward_margin"]]
    assert len(alike(unlike, [cell.model_copy(update={"scores": {}}) for cell in others])) == 2, "one is no share"


def test_what_no_cell_has_is_not_shown(evaluation: Evaluation) -> None:
    bare = evaluation.model_copy(
        update={"variants": [cell("base", 0.1)], "metrics": [METRICS["bertscore"], METRICS["bleu"]]}
    )
    shown = seen(evaluation_table(bare, "vlm-sft"))
    assert "bleu" in shown
    assert "bertscore" not in shown
    nowhere = {"metrics": [METRICS[name] for name in ("exact_match", "bertscore", "rouge1")]}
    assert "The same numbers" not in evaluation_words(evaluation.model_copy(update=nowhere), Path("scores"))
    assert "loss" not in shown


def test_where_all_rows_score_the_same_there_is_no_interval_and_a_sentence_why(evaluation: Evaluation) -> None:
    why = "Where each draw of 12 images gives the same number, no interval is shown"
    assert why not in evaluation_words(evaluation, Path("scores"))
    nothing = VariantScores(name="base", scores={"exact_match": Score(value=0.0, low=0.0, high=0.0)})
    gap = evaluation.gaps[2].model_copy(update={"difference": 0.0, "low": None, "high": None, "p_value": 1.0})
    whole = evaluation.model_copy(update={"variants": [nothing, evaluation.tuned], "gaps": [gap]})
    shown = cells(seen(evaluation_table(whole, "vlm-sft"), width=80))
    assert ["exact", "match", "0.0%", "90.0%"] in shown
    assert "0.0–0.0" not in seen(evaluation_table(whole, "vlm-sft"))
    told = evaluation_words(whole, Path("scores"))
    assert why in told
    assert "tuned against nobody: no difference shown, +0.0 points, p = 1" in told
    for one in ({"variants": whole.variants}, {"gaps": [gap]}):
        assert why in evaluation_words(evaluation.model_copy(update=one), Path("scores"))
    few = whole.model_copy(update={"units": Units(name="images", num=3, effective=3)})
    assert "gives the same number" not in evaluation_words(few, Path("scores")), "there are too few for any"


def test_classes_are_shown_of_the_tuned_model_without_a_prompt(evaluation: Evaluation) -> None:
    table = class_table(evaluation)
    assert table is not None
    shown = cells(seen(table))
    assert shown[0] == ["classes,", "tuned", "model"]
    assert shown[2:] == [["[/cat]", "2", "100.0%", "50.0%", "66.7%"], ["dog", "1", "0.0%", "0.0%", "0.0%"]]
    bare = evaluation.model_copy(update={"variants": [cell("base", 0.1), cell("tuned", 0.9)]})
    assert class_table(bare) is None


def test_an_evaluation_in_words_tells_what_was_shown_and_what_was_not(evaluation: Evaluation) -> None:
    lines = evaluation_words(evaluation, Path("scores")).splitlines()
    assert lines == [
        "On 3 test rows that no trial has seen, in exact match:",
        "  tuned against base: better, +40.0 points (+10.0 to +70.0), p = 0.012",
        "  tuned against most frequent answer: worse, -30.0 points (+10.0 to +70.0), p = 0.012",
        "  tuned against nobody: no difference shown, +20.0 points (+10.0 to +70.0), p = 0.012",
        "most frequent answer: always the most frequent training answer to the same question.",
        "The same numbers as exact match: bleu.",
        "Below each value: its 95 % interval, resampled over 12 images with all their rows, as rows of a group are not "
        "independent.",
        "p values are Holm-corrected over 3 comparisons; intervals are not corrected.",
        "Answers truncated at evaluation.max_new_tokens: base-adaptive 7",
        "Every row with its answer and metrics, and all scores: scores",
    ]
    alone = evaluation_words(without_base(evaluation), Path("scores"))
    models = evaluation.model_copy(update={"variants": evaluation.models})
    assert "training answer" not in evaluation_words(models, Path("scores"))
    assert "The base model was not evaluated, so the gain over it is not known." in alone
    longer = evaluation.model_copy(update={"longer_than_limit": 4})
    assert "4 references are longer than the generation limit: --max-new" in evaluation_words(longer, Path("scores"))
