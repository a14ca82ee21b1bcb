"""What is raced: the base, the rows, and the list of trials. A file, which every way reads."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "setting.json"
ROWS = "rows.jsonl"
QUESTION = "Which digit is written here?"
SEED = 42
PRUNER_STARTUP = 5
"""Trials that are not pruned, before the median rules."""
PRUNED_FROM = 2
"""The first report at which a trial may be stopped."""
R_CHOICES, ALPHA_CHOICES = (4, 8, 16, 32), (16, 32, 64)


@dataclass(frozen=True)
class Point:
    """One trial's values. Dropout is 0: its masks depend on the rows per forward, and losses could not be compared."""

    learning_rate: float
    r: int
    alpha: int

    def params(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Setting:
    """`base` is a folder; `image_size` in pixels a side; `steps` are optimizer steps, a multiple of `reports`."""

    name: str
    base: str
    image_size: int
    train_rows: int
    validation_rows: int
    steps: int
    gradient_checkpointing: bool
    trials: int = 16
    rows_per_step: int = 16
    reports: int = 4
    lowest_rate: float = 3e-4
    highest_rate: float = 2e-2

    def points(self) -> list[Point]:
        """The same for everyone: drawn once from a seeded generator."""
        draw = random.Random(1)
        low, high = math.log(self.lowest_rate), math.log(self.highest_rate)
        return [
            Point(math.exp(draw.uniform(low, high)), draw.choice(R_CHOICES), draw.choice(ALPHA_CHOICES))
            for _ in range(self.trials)
        ]

    @property
    def steps_per_report(self) -> int:
        return self.steps // self.reports

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(folder: Path) -> Setting:
        return Setting(**json.loads((folder / FILE).read_text()))

    def write_rows(self, folder: Path) -> None:
        """scikit-learn's digits as visual questions, at the size that the model takes, so that nobody resizes."""
        from PIL import Image

        from hpsearch.data.bundled import digits

        (folder / "images").mkdir()
        needed = [("train", self.train_rows), ("validation", self.validation_rows), ("test", 10)]
        splits = [name for name, number in needed for _ in range(number)]
        order = random.Random(0).sample(range(1797), len(splits))
        lines = []
        for split, row in zip(splits, digits().select(order), strict=True):
            file = folder / "images" / f"{len(lines)}.png"
            row["image"].resize((self.image_size, self.image_size), Image.Resampling.BICUBIC).save(file)
            fields = {"image": str(file), "question": QUESTION, "answer": row["answer"], "split": split}
            lines.append(json.dumps(fields))
        (folder / ROWS).write_text("\n".join(lines))


def rows_of(folder: Path, split: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
    return [row for row in rows if row["split"] == split]
