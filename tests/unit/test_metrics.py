"""Metrics of answers as text: per row and over all rows, against values by hand and the libraries' own. Classes:
test_class_metrics.py; intervals and comparisons: test_comparison_statistics.py."""

from __future__ import annotations

import math
import random
import re
import string

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from hpsearch.metrics import most_frequent_answers, normalised, row_scores, scores

pytestmark = pytest.mark.all_resamples

F_MEASURES = ["exact_match", "exact_match_raw", "token_f1", "rouge1", "rougeL"]
USUAL = [*F_MEASURES, "bleu"]
"""1 for equal answers, 0 where no word is shared. What any metric must be is in test_facts.py."""
WORDS = [
    "the",
    "a",
    "an",
    "cat",
    "Cat",
    "sat",
    "on",
    "mat",
    "mat.",
    "(mat)",
    "b-cell",
    "5.0",
    "$3",
    "under_score",
    "I'm",
]


def usual(reference: str, prediction: str) -> dict[str, float]:
    found = row_scores(reference, prediction)
    return {name: found[name] for name in USUAL}


def text(draw: random.Random, longest: int = 8) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("The  Cat\n", "cat"),
        ("a cat, an owl and the dog!", "cat owl and dog"),
        ("theatre", "theatre"),
        ("B-cell", "bcell"),
        ("5.0 mg", "50 mg"),
        ("“Yes”, it’s…", "yes its"),
        ("¿Dónde está?", "dónde está"),
        ("cafe\u0301", "caf\u00e9"),
        ("ÄRGER", "ärger"),
        ("", ""),
        (" \t ", ""),
        ("A", "a"),
        ("(A).", "a"),
        ("The", "the"),
        ("+", "+"),
        (" . . ", ". ."),
    ],
)
def test_normalising(written: str, expected: str) -> None:
    assert normalised(written) == expected


def test_normalising_twice_changes_nothing() -> None:
    draw = random.Random(0)
    characters = string.printable + "éß“”…中и\u0301"
    for _ in range(500):
        once = normalised("".join(draw.choices(characters, k=draw.randint(0, 12))))
        assert normalised(once) == once


def squad_normalised(written: str) -> str:
    """As in SQuAD's own evaluate-v1.1.py."""
    no_punctuation = "".join(c for c in written.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", no_punctuation).split())


def test_normalising_is_squads_where_that_leaves_something() -> None:
    draw = random.Random(1)
    compared = 0
    for _ in range(500):
        written = text(draw)
        if expected := squad_normalised(written):
            compared += 1
            assert normalised(written) == expected
    assert compared > 400


def test_an_equal_answer_has_full_marks() -> None:
    assert usual("A red blood cell.", "A red blood cell.") == pytest.approx(dict.fromkeys(USUAL, 1.0))
    assert row_scores("yes", "yes")["bleu"] == 1.0, "sacrebleu says 100.00000000000004"


def test_values_by_hand() -> None:
    row = row_scores("the cat sat on the mat", "The cat sat on a mat!")
    assert row["exact_match"] == 1.0
    assert row["exact_match_raw"] == 0.0
    assert row["token_f1"] == 1.0
    # six words each; "the" twice against once, the rest shared: 5 of 6, in order
    assert row["rouge1"] == pytest.approx(5 / 6)
    assert row["rougeL"] == pytest.approx(5 / 6)
    # 13a splits "!" off and keeps case: 4 of 7 tokens are shared, 2 of 6 pairs, 1 of 5 triples, and 0 of 4 four-grams,
    # smoothed to a half
    assert row["bleu"] == pytest.approx((4 / 7 * 2 / 6 * 1 / 5 * 0.5 / 4) ** 0.25)


def test_order_matters_to_rouge_l_alone() -> None:
    row = row_scores("one two three four", "four three two one")
    assert row["token_f1"] == row["rouge1"] == 1.0
    assert row["rougeL"] == pytest.approx(1 / 4)


def test_repeated_words_count_as_often_as_both_have_them() -> None:
    # shared: "yes" once; precision 1/3, recall 1/1
    assert row_scores("yes", "yes yes yes")["token_f1"] == pytest.approx(2 * (1 / 3) / (1 / 3 + 1))


def test_there_is_no_stemming() -> None:
    assert row_scores("variants", "cell")["rouge1"] == 0.0


@pytest.mark.parametrize("prediction", ["", "   ", "...", "?!"])
def test_an_answer_without_words_has_no_marks(prediction: str) -> None:
    assert usual("two cells", prediction) == dict.fromkeys(USUAL, 0.0)


def test_two_empty_answers() -> None:
    row = row_scores("", " ")
    assert (row["exact_match"], row["exact_match_raw"], row["token_f1"]) == (1.0, 1.0, 1.0)
    assert (row["rouge1"], row["rougeL"], row["bleu"]) == (0.0, 0.0, 0.0), "the libraries have nothing to count"


@pytest.mark.parametrize(("reference", "prediction"), [("A", ""), ("A", "the"), ("+", "-"), ("+", "")])
def test_answers_that_normalising_would_empty_still_differ(reference: str, prediction: str) -> None:
    row = row_scores(reference, prediction)
    assert row["exact_match"] == row["token_f1"] == 0.0


@pytest.mark.parametrize("answer", ["красные клетки", "赤血球", "कोशिका", "naïve café", "β-Zelle"])
def test_equal_answers_in_every_alphabet_have_full_marks(answer: str) -> None:
    assert usual(answer, answer) == pytest.approx(dict.fromkeys(USUAL, 1.0))


def test_accents_are_part_of_a_word() -> None:
    assert row_scores("café noir", "caf noir")["rouge1"] == pytest.approx(1 / 2)


def test_ascii_text_has_the_libraries_own_values() -> None:
    draw = random.Random(2)
    rouge, bleu = RougeScorer(["rouge1", "rougeL"], use_stemmer=False), BLEU(effective_order=True)
    for _ in range(300):
        reference, prediction = text(draw), text(draw)
        row = row_scores(reference, prediction)
        expected = rouge.score(reference, prediction)
        assert row["rouge1"] == expected["rouge1"].fmeasure
        assert row["rougeL"] == expected["rougeL"].fmeasure
        assert row["bleu"] == pytest.approx(bleu.sentence_score(prediction, [reference]).score / 100)


def test_every_number_is_from_0_to_1_and_f_measures_are_symmetric() -> None:
    draw = random.Random(3)
    for _ in range(300):
        one, other = text(draw), draw.choice([text(draw), "", "…", "да"])
        there, back = row_scores(one, other), row_scores(other, one)
        assert all(0 <= there[name] <= 1 for name in USUAL)
        for name in F_MEASURES:
            assert there[name] == pytest.approx(back[name]), name


REFERENCES = ["two red blood cells", "yes", "no", "the patient has a fever and a cough"]
PREDICTIONS = ["Two red blood cells.", "yes", "yes", "the patient has a fever and no cough"]


def test_over_all_rows_are_means_except_bleu() -> None:
    rows = [row_scores(*pair) for pair in zip(REFERENCES, PREDICTIONS, strict=True)]
    overall = scores(REFERENCES, PREDICTIONS, USUAL)
    for name in F_MEASURES:
        assert overall[name] == pytest.approx(sum(row[name] for row in rows) / 4), name
    assert overall["exact_match"] == 0.5
    assert overall["exact_match_raw"] == 0.25
    assert overall["bleu"] == pytest.approx(BLEU().corpus_score(PREDICTIONS, [REFERENCES]).score / 100)
    assert overall["bleu"] != pytest.approx(sum(row["bleu"] for row in rows) / 4)


def test_corpus_bleu_by_hand() -> None:
    # 1-, 2-, 3-, 4-grams shared: 4 of 5, 3 of 4, 2 of 3, 1 of 2; five tokens against seven expected
    expected = math.exp(1 - 7 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert scores(["a b c d e f g"], ["a b c d x"], ["bleu"])["bleu"] == pytest.approx(expected)


def test_right_answers_of_one_word_have_full_bleu() -> None:
    answers = ["yes", "no", "yes"]
    assert BLEU().corpus_score(answers, [answers]).score == 0.0, "sacrebleu's default has changed: simplify"
    assert scores(answers, answers, ["bleu"])["bleu"] == 1.0


def test_only_the_named_metrics_in_their_order() -> None:
    assert list(scores(["a"], ["a"], ["rougeL", "accuracy"])) == ["rougeL", "accuracy"]


@pytest.mark.parametrize(
    ("references", "predictions", "name", "message"),
    [
        ([], [], "bleu", "there are no rows to score"),
        (["yes"], [], "bleu", "1 references but 0 predictions: each row needs both"),
        (["yes"], ["yes"], "rouge-1", "no metric is called 'rouge-1'; did you mean 'rouge1'?"),
        (["yes"], ["yes"], "bertscore", "bertscore is not computed here: it comes as a number per row"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    references: list[str], predictions: list[str], name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        scores(references, predictions, [name])


def test_the_baseline_answers_from_the_question_alone() -> None:
    train = [("colour?", "red"), ("colour?", "blue"), ("colour?", "red"), ("how many?", "2"), ("how many?", "10")]
    questions = ["how many?", "colour?", "why?", "Colour?"]
    assert most_frequent_answers(iter(train), questions) == ["10", "red", "red", "red"], "a tie: alphabetically first"


def test_the_baseline_breaks_overall_ties_alphabetically_whatever_the_order() -> None:
    train = [("q1", "b"), ("q2", "a"), ("q3", "c")]
    for order in (train, train[::-1]):
        assert most_frequent_answers(order, ["unknown"]) == ["a"]


def test_the_baseline_needs_training_rows_unless_nothing_is_asked() -> None:
    with pytest.raises(ValueError, match="the training rows are empty"):
        most_frequent_answers([], ["why?"])
    assert most_frequent_answers([("q", "a")], []) == []
