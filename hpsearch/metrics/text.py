"""Metrics of one answer against its reference: equality, shared words, ROUGE and BLEU, each from 0 to 1.

The usual definitions are made for English text and whole documents. We leave them in three places:

* rouge-score and SQuAD know ASCII only. rouge-score drops every other letter, so that an equal answer in Cyrillic
  scores 0 (https://github.com/huggingface/evaluate/issues/256); SQuAD keeps curly quotes. Here letters, numbers and
  punctuation are what Unicode says they are, as in MLQA's evaluation. On ASCII text the results are the usual ones.
* SQuAD's normalising leaves nothing of "A", "the" or "+", so that an empty answer equals option A, and "+" equals "-".
  Here a step that would leave nothing is not taken.
* A corpus of answers shorter than four words has no four-grams, and its BLEU is 0 even where every answer is right
  (https://github.com/mjpost/sacrebleu/issues/114). Here BLEU goes up to the longest n-grams there are
  (`effective_order`), for a row and for a corpus alike; nothing changes where one answer has four words.

Words are split at blanks: in a language without them an answer is one word. rouge-score loads nltk, but without
stemming it needs none of nltk's data, and nothing is downloaded.
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

_ARTICLES = frozenset(["a", "an", "the"])


def normalised(text: str) -> str:
    """In lower case, without punctuation and the articles a, an, the; one space between words (as SQuAD does).

    A step that would leave an empty text is skipped: "The" becomes "the" and "+" stays.
    """
    lower = text.lower()
    words = "".join(character for character in lower if not _is_punctuation(character)).split() or lower.split()
    without_articles = [word for word in words if word not in _ARTICLES]
    return unicodedata.normalize("NFC", " ".join(without_articles or words))


def exact_match(reference: str, prediction: str) -> float:
    return float(normalised(reference) == normalised(prediction))


def exact_match_raw(reference: str, prediction: str) -> float:
    """1 if both are equal, ignoring whitespace around them."""
    return float(reference.strip() == prediction.strip())


def token_f1(reference: str, prediction: str) -> float:
    """The harmonic mean of precision and recall of the normalised words; 1 if both are empty, 0 if one is."""
    expected, said = normalised(reference).split(), normalised(prediction).split()
    if not expected and not said:
        return 1.0
    shared = (Counter(expected) & Counter(said)).total()
    return 2 * shared / (len(expected) + len(said))


def rouge1(reference: str, prediction: str) -> float:
    """The F-measure of shared words, without stemming."""
    return _rouge("rouge1", reference, prediction)


def rouge_l(reference: str, prediction: str) -> float:
    """The F-measure of the longest common subsequence of words, without stemming."""
    return _rouge("rougeL", reference, prediction)


def sentence_bleu(reference: str, prediction: str) -> float:
    """sacrebleu's BLEU of one answer, exponentially smoothed, tokenized as 13a; 0 if either is empty.

    Case and punctuation count.
    """
    return min(float(bleu().sentence_score(prediction, [reference]).score) / 100, 1.0)


ROW_METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "exact_match_raw": exact_match_raw,
    "token_f1": token_f1,
    "rouge1": rouge1,
    "rougeL": rouge_l,
    "bleu": sentence_bleu,
}
"""From (reference, prediction) to a number."""


def row_scores(reference: str, prediction: str) -> dict[str, float]:
    """Every metric that is defined for a single row, by name."""
    return {name: metric(reference, prediction) for name, metric in ROW_METRICS.items()}


def corpus_bleu(references: list[str], predictions: list[str]) -> float:
    """sacrebleu's BLEU over all rows, from 0 to 1."""
    return min(float(bleu().corpus_score(predictions, [references]).score) / 100, 1.0)


@cache
def bleu() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, force=True)  # force: no warning about answers that end in " ."


def _rouge(name: str, reference: str, prediction: str) -> float:
    return float(_rouge_scorer(name).score(target=reference, prediction=prediction)[name].fmeasure)


@cache
def _rouge_scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([name], tokenizer=_Words())


class _Words:
    """rouge-score's tokenizer, extended to every alphabet."""

    def tokenize(self, text: str) -> list[str]:
        lower = unicodedata.normalize("NFC", text).lower()
        # letters, the marks on them, and numbers
        return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in lower).split()


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
