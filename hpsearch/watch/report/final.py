"""The final run and its evaluation: their results, and examples of right and wrong answers."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpsearch.data.manifest import Manifest
from hpsearch.evaluation import Evaluation, Score, VariantScores, alike
from hpsearch.files import read_file
from hpsearch.spec.metrics import Metric
from hpsearch.trial import GIB, HistoryPoint, TrialConfig, TrialResult
from hpsearch.watch.evaluation import format_ends
from hpsearch.watch.report.story import Facts
from hpsearch.watch.words import format_metric, format_time

MOST_EXAMPLES = 6
"""For right answers, and as many for wrong ones."""
Row = dict[str, Any]
"""One line of a scored file."""


@dataclass(frozen=True)
class FinalRun:
    """`scores` is the folder of the scored rows, one file per configuration."""

    path: Path
    config: TrialConfig
    result: TrialResult
    history: list[HistoryPoint]
    evaluation: Evaluation | None
    scores: Path

    @cached_property
    def answers(self) -> list[Example]:
        """Each test row with the tuned and the base model's answers; empty where their files are missing."""
        if self.evaluation is None or self.evaluation.metrics[0].over == "losses":
            return []
        tuned = self.evaluation.tuned.name
        said = {
            row["id"]: row["prediction"] for row in _rows(self.scores / f"{tuned.replace('tuned', 'base', 1)}.jsonl")
        }
        metric = self.evaluation.metrics[0]
        return [
            Example(
                id=row["id"],
                question=row["question"],
                images=[Path(image) for image in row.get("images", [row["image"]] if row.get("image") else [])],
                reference=row["reference"],
                tuned=row["prediction"],
                base=said.get(row["id"]),
                score=_score(row, metric),
                rejected=row.get("rejected"),
            )
            for row in _rows(self.scores / f"{tuned}.jsonl")
        ]


def _rows(file: Path) -> list[Row]:
    """An answer may contain characters that Python's splitlines takes for line ends, but no newline."""
    return read_file(file, _parsed) if file.exists() else []


def _parsed(content: bytes) -> list[Row]:
    return [json.loads(line) for line in content.split(b"\n") if line]


def _score(row: Row, metric: Metric) -> float:
    """By the leading metric, or else by equality: not every metric has a number per row, and a person's own need not
    tell what is right.
    """
    numbers = row | row.get("numbers", {})
    return float(row["accuracy"] if metric.is_own or metric.name not in numbers else numbers[metric.name])


@dataclass(frozen=True)
class Example:
    """One test row. `score`: from 0, wrong, to 1, right."""

    id: str
    question: str
    images: list[Path]
    reference: str
    tuned: str
    base: str | None
    score: float
    rejected: str | None = None
    """The answer that is not to be learned."""


def right_ones(answers: list[Example]) -> list[Example]:
    """Correct ones, with as many different references as possible; or else the closest ones."""
    right = [example for example in answers if example.score >= 1]
    if right:
        return _mixed(right)
    return sorted((example for example in answers if example.score > 0), key=lambda example: -example.score)[
        :MOST_EXAMPLES
    ]


def wrong_ones(answers: list[Example]) -> list[Example]:
    """Some of the most wrong ones, with as many different references as possible."""
    wrong = sorted((example for example in answers if example.score < 1), key=lambda example: example.score)
    worst = [example for example in wrong if example.score == wrong[0].score]
    return _mixed(worst if len(worst) >= MOST_EXAMPLES else wrong[:MOST_EXAMPLES])


def _mixed(examples: list[Example]) -> list[Example]:
    """Alternates between references."""
    by_reference: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_reference[example.reference].append(example)
    in_turn = sorted(
        (
            (position, order, example)
            for order, group in enumerate(by_reference.values())
            for position, example in enumerate(group)
        ),
        key=lambda entry: entry[:2],
    )
    return [example for _, _, example in in_turn[:MOST_EXAMPLES]]


def run_facts(run: FinalRun) -> Facts:
    result = run.result
    facts = [
        ("run folder", str(run.path)),
        ("ended", str(result.outcome)),
        ("optimizer steps", f"{result.num_steps}, in {format_time(result.train_seconds)}"),
        (
            "trainable parameters",
            f"{result.trainable_parameters:,} of {result.total_parameters:,} ({result.trainable_percent:.2f} %)",
        ),
    ]
    if ledger := result.ledger:
        device = f"{ledger.used_device_bytes / GIB:.2f} GiB on the device, " if ledger.used_device_bytes else ""
        facts.append(("peak memory", f"{device}{ledger.peak_host_bytes / GIB:.2f} GiB on the host"))
    return facts


def score_rows(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each metric with, for every configuration, its value and its interval."""
    rows = [
        (metric.title, [_format_score(metric, variant.scores.get(metric.name)) for variant in evaluation.variants])
        for metric, *_ in alike(evaluation.metrics, evaluation.variants)
    ]
    losses = [("" if variant.loss is None else f"{variant.loss:.4f}", "") for variant in evaluation.variants]
    return [*rows, ("loss", losses)]


def _format_score(metric: Metric, score: Score | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    return format_metric(metric, score.value), format_ends(metric, score.interval) if score.interval else ""


def class_table(variant: VariantScores, manifest: Manifest) -> tuple[list[str], list[list[str]]]:
    """Headings, and each class: its train and test rows, accuracy, precision, F1. Without a label column nothing says
    how many train rows a class has.
    """
    train = manifest.labels.get("train", {})
    rows = [
        [
            of.label,
            *([str(train.get(of.label, 0))] if train else []),
            str(of.support),
            *(f"{rate:.1%}" for rate in (of.accuracy, of.precision, of.f1)),
        ]
        for of in variant.ordered_classes
    ]
    headings = ["class", *(["train rows"] if train else []), "test rows", "accuracy", "precision", "F1"]
    return headings, rows
