"""What a tiny base is pretrained on: a task related to the studies' tasks, never the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_wine

from hpsearch.train.tiny.printed import QUESTIONS, printed_digit
from hpsearch.train.tiny.tokenizers import prose

LessonRow = dict[str, Any]
NUM_ROWS = 4096
_LONGEST_WORD = 10


def read_print(folder: Path, rng: np.random.Generator) -> list[LessonRow]:
    """Printed digits in all fonts, upright and distorted; the images go to `folder`.

    Some questions also ask to repeat words: a base trained on digits alone could generate nothing else.
    """
    vocabulary = _words()
    rows = []
    for position in range(NUM_ROWS):
        digit = position % 10
        file = folder / f"{position}.png"
        printed_digit(digit, rng.uniform(), rng).save(file)
        question, answer = QUESTIONS[rng.integers(len(QUESTIONS))], str(digit)
        if rng.uniform() < 0.3:
            words = _some(vocabulary, rng, most=3)
            question, answer = f"{question} Then repeat: {words}", f"{digit} {words}"
        rows.append(_row(question, answer, file))
    return rows


def compare_wines(_folder: Path, rng: np.random.Generator) -> list[LessonRow]:
    """Questions about the measurements of wines: is one of them high or low? And words to repeat."""
    wine = load_wine()
    vocabulary = _words()
    names = [name.replace("_", " ").replace("/", " ") for name in wine.feature_names]
    medians = np.median(wine.data, axis=0)
    rows = []
    for _ in range(NUM_ROWS):
        if rng.uniform() < 0.7:
            words = _some(vocabulary, rng, most=5)
            rows.append(_row(f"Repeat: {words}", words, None))
            continue
        number = int(rng.integers(len(wine.data)))
        values = wine.data[number] * rng.uniform(0.97, 1.03, wine.data.shape[1])
        chosen = rng.choice(len(names), size=3, replace=False)
        listed = ", ".join(f"{names[i]} {values[i]:.3g}" for i in chosen)
        asked = chosen[rng.integers(len(chosen))]
        level = "high" if values[asked] > medians[asked] else "low"
        rows.append(_row(f"Is the {names[asked]} of this wine high or low? {listed}", level, None))
    return rows


def _words() -> list[str]:
    """The short words of the text that the vocabulary was trained on: addresses would make rows ten times longer."""
    return sorted({word for text in prose() for word in text.split() if len(word) <= _LONGEST_WORD})


def _some(vocabulary: list[str], rng: np.random.Generator, most: int) -> str:
    return " ".join(rng.choice(vocabulary, size=rng.integers(1, most + 1)))


def _row(question: str, answer: str, image: Path | None) -> LessonRow:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    names = [str(image)] if image else []
    return {"messages": messages, "images": names, "image_sha256s": names}


Lesson = Callable[[Path, np.random.Generator], list[LessonRow]]
