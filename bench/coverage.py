"""How often a 95 % interval holds the truth, and a comparison of equals is shown, where rows come in groups.

    python -m bench.coverage                   the table: BLEU, the last row, takes as long as all others
    python -m bench.coverage --studies 200     sooner, with more left to chance

Each simulated study asks two models that are equally good about the same rows. A model's chance to be right differs
from group to group (a beta distribution with the given intraclass correlation), so that rows of one group resemble
each other. Each study is judged twice: as if its rows were independent, and by whole groups as `hpsearch evaluate` and
`hpsearch compare` do. After each share comes its standard error, √(p (1 - p) / studies), in points.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache

import numpy as np
from rich.console import Console
from rich.table import Table

from hpsearch.metrics import score_difference, score_interval, scores

CLASSES = ("red", "white", "platelet")
SHARES = (0.5, 0.3, 0.2)
RIGHT = 0.6
WORDS = ("two", "red", "blood", "cells", "and", "one", "white", "cell", "near", "the", "edge")
LARGE = 3_000
"""Groups that tell the true BLEU, which no formula does."""


@dataclass(frozen=True)
class Setting:
    """`unequal`: groups of 1 to 17 rows instead of 9."""

    metric: str
    num_groups: int
    correlation: float = 0.3
    unequal: bool = False

    @property
    def told(self) -> str:
        size = "1 to 17 rows" if self.unequal else "9 rows"
        return f"{self.metric.replace('_', ' ')}, {self.num_groups} groups of {size}, correlation {self.correlation}"


@dataclass(frozen=True)
class Study:
    groups: list[int]
    references: list[str]
    a: list[str]
    b: list[str]


@dataclass(frozen=True)
class Shares:
    """Of the studies whose interval holds the truth, and of those whose two equal models are shown to differ."""

    covered: float
    shown: float


def measure(setting: Setting, num_studies: int, *, by_group: bool, seed: int = 0) -> Shares:
    draws = np.random.default_rng(seed)
    truth = _truth(setting.metric, setting.correlation)
    covered = shown = 0
    for _ in range(num_studies):
        study = simulated(setting, draws)
        groups = study.groups if by_group else None
        around = score_interval(study.references, study.a, setting.metric, groups)
        covered += around is not None and around.low <= truth <= around.high
        shown += score_difference(study.references, study.a, study.b, setting.metric, groups).shown
    return Shares(covered / num_studies, shown / num_studies)


def simulated(setting: Setting, draws: np.random.Generator) -> Study:
    sizes = draws.integers(1, 18, size=setting.num_groups) if setting.unequal else np.full(setting.num_groups, 9)
    groups = np.repeat(np.arange(setting.num_groups), sizes)
    asked, answered = (_texts, _repeated) if setting.metric == "bleu" else (_labels, _labelled)
    references = asked(len(groups), draws)
    a, b = (answered(references, _chances(setting, draws)[groups], draws) for _ in range(2))
    return Study(groups.tolist(), references, a, b)


def _chances(setting: Setting, draws: np.random.Generator) -> np.ndarray:
    """Each group's chance to be right: two rows of a group are then correlated by 1 / (alpha + beta + 1)."""
    both = 1 / setting.correlation - 1
    return draws.beta(RIGHT * both, (1 - RIGHT) * both, size=setting.num_groups)


def _labels(num_rows: int, draws: np.random.Generator) -> list[str]:
    return draws.choice(CLASSES, size=num_rows, p=SHARES).tolist()


def _labelled(references: list[str], chances: np.ndarray, draws: np.random.Generator) -> list[str]:
    """A wrong answer is one of the other two classes."""
    steps = np.where(draws.random(len(references)) < chances, 0, draws.integers(1, 3, size=len(references)))
    return [CLASSES[(CLASSES.index(label) + step) % 3] for label, step in zip(references, steps, strict=True)]


def _texts(num_rows: int, draws: np.random.Generator) -> list[str]:
    return [" ".join(draws.choice(WORDS, size=size)) for size in draws.integers(4, 11, size=num_rows)]


def _repeated(references: list[str], chances: np.ndarray, draws: np.random.Generator) -> list[str]:
    """Each word is kept with the group's chance."""
    texts = []
    for reference, chance in zip(references, chances, strict=True):
        words = reference.split()
        kept = draws.random(len(words)) < chance
        texts.append(" ".join(word if keep else "?" for word, keep in zip(words, kept, strict=True)))
    return texts


@cache
def _truth(metric: str, correlation: float) -> float:
    """Over endlessly many groups."""
    if metric == "macro_f1":
        predicted = [share * RIGHT + (1 - share) * (1 - RIGHT) / 2 for share in SHARES]
        return sum(2 * p * RIGHT / (p + q) for p, q in zip(SHARES, predicted, strict=True)) / len(SHARES)
    if metric == "bleu":
        study = simulated(Setting(metric, LARGE, correlation), np.random.default_rng(0))
        return scores(study.references, study.a, [metric])[metric]
    return RIGHT


SETTINGS = (
    *(Setting("accuracy", groups) for groups in (10, 30, 120)),
    Setting("accuracy", 30, unequal=True),
    *(Setting("macro_f1", groups) for groups in (30, 120)),
    Setting("bleu", 30),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1_000)
    num_studies = parser.parse_args().studies
    table = Table(title=f"{num_studies:,} simulated studies each; wanted: 95 % hold the truth, 5 % are shown")
    for heading in ("", "rows: hold", "rows: shown", "groups: hold", "groups: shown"):
        table.add_column(heading, justify="right" if heading else "left")
    console = Console(width=120)
    for setting in SETTINGS:
        rows, groups = (measure(setting, num_studies, by_group=by_group) for by_group in (False, True))
        shares = (rows.covered, rows.shown, groups.covered, groups.shown)
        told = [f"{100 * p:.1f} ± {100 * (p * (1 - p) / num_studies) ** 0.5:.1f}" for p in shares]
        console.print(f"{setting.told}: {', '.join(told)}", highlight=False)
        table.add_row(setting.told, *told)
    console.print(table)


if __name__ == "__main__":
    main()
