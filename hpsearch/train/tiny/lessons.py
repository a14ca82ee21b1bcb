"""What a tiny base learns before anyone fine-tunes it: a task related to the studies', never the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_wine

from hpsearch.train.tiny.printed import QUESTIONS, printed_digit

LessonRow = dict[str, Any]
NUM_ROWS = 4096


def read_print(folder: Path, rng: np.random.Generator) -> list[LessonRow]:
    """Printed digits in all fonts, upright and distorted; the images go to `folder`."""
    rows = []
    for position in range(NUM_ROWS):
        digit = position % 10
        file = folder / f"{position}.png"
        printed_digit(digit, rng.uniform(), rng).save(file)
        question = QUESTIONS[rng.integers(len(QUESTIONS))]
        rows.append(_row(question, str(digit), file))
    return rows


def compare_wines(_folder: Path, rng: np.random.Generator) -> list[LessonRow]:
    """Questions about the measurements of wines: which cultivar, and is one of them high or low?"""
    wine = load_wine()
    names = [name.replace("_", " ").replace("/", " ") for name in wine.feature_names]
    medians = np.median(wine.data, axis=0)
    rows = []
    for _ in range(NUM_ROWS):
        number = int(rng.integers(len(wine.data)))
        values = wine.data[number] * rng.uniform(0.97, 1.03, wine.data.shape[1])
        chosen = rng.choice(len(names), size=6, replace=False)
        listed = ", ".join(f"{names[i]} {values[i]:.3g}" for i in chosen)
        asked = chosen[rng.integers(len(chosen))]
        level = "high" if values[asked] > medians[asked] else "low"
        rows.append(_row(f"Is the {names[asked]} of this wine high or low? {listed}", level, None))
    return rows


def _row(question: str, answer: str, image: Path | None) -> LessonRow:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "image": str(image) if image else None}


Lesson = Callable[[Path, np.random.Generator], list[LessonRow]]
