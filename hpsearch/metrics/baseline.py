"""The baseline that never looks at the image: on visual questions it is often right half of the time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable


def most_frequent_answers(train: Iterable[tuple[str, str]], questions: list[str]) -> list[str]:
    """For each question the most frequent answer to that very question in `train`, pairs of question and answer.

    A question that `train` does not hold gets the most frequent answer over all. Of equally frequent answers the
    alphabetically first is taken. Questions and answers count as the same only if they are equal, letter by letter.

    Raises:
        ValueError: `train` is empty.
    """
    by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for question, answer in train:
        by_question[question][answer] += 1
        overall[answer] += 1
    if not overall:
        raise ValueError("there is no most frequent answer: the training rows are empty")
    answers = {question: _most_frequent(counts) for question, counts in by_question.items()}
    otherwise = _most_frequent(overall)
    return [answers.get(question, otherwise) for question in questions]


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
