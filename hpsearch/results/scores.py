"""Scoring answers: every metric with its interval, and every row with its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from hpsearch.folders import write_text
from hpsearch.jobs import AnsweredRow
from hpsearch.metrics import (
    class_scores,
    confusion,
    interval,
    row_scores,
    score_interval,
    scores,
)
from hpsearch.scores import CellScores, Score
from hpsearch.spec.evaluation import MetricName
from hpsearch.spec.study import Task

TEXT_METRICS: tuple[MetricName, ...] = ("exact_match", "exact_match_raw", "token_f1", "rouge1", "rougeL", "bleu")
CLASS_METRICS: tuple[MetricName, ...] = ("accuracy", "balanced_accuracy", "macro_f1")
MOST_CLASSES = 20
"""Answers with at most so many different references are looked at as classes too."""


def default_metrics(task: Task, references: Sequence[str], has_bertscore: bool) -> list[MetricName]:
    few = len(set(references)) <= MOST_CLASSES
    names: list[MetricName] = list(CLASS_METRICS) if task == "vlm-classify" or few else []
    if task != "vlm-classify":
        names = [*TEXT_METRICS, *names]
        if has_bertscore:
            names.append("bertscore")
    return names


def score_cell(name: str, rows: list[AnsweredRow], metrics: Sequence[MetricName]) -> CellScores:
    """`rows` have references."""
    references = [row.reference or "" for row in rows]
    predictions = [row.prediction for row in rows]
    plain = [metric for metric in metrics if metric != "bertscore"]
    values = scores(references, predictions, plain)
    found: dict[MetricName, Score] = {}
    for metric in plain:
        around = score_interval(references, predictions, metric)
        found[metric] = Score(value=values[metric], low=around.low, high=around.high)
    semantic = [row.bertscore for row in rows if row.bertscore is not None]
    if "bertscore" in metrics and semantic:
        around = interval(semantic)
        found["bertscore"] = Score(value=sum(semantic) / len(semantic), low=around.low, high=around.high)
    losses = [(row.loss, row.num_tokens) for row in rows if row.loss is not None]
    has_classes = any(metric in CLASS_METRICS for metric in metrics)
    return CellScores(
        name=name,
        scores=found,
        loss=sum(loss * tokens for loss, tokens in losses) / sum(tokens for _, tokens in losses) if losses else None,
        num_cut=sum(row.is_cut for row in rows),
        classes=class_scores(references, predictions) if has_classes else [],
        confusion=confusion(references, predictions) if has_classes else None,
    )


_ROWS: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


def write_scored_rows(file: Path, rows: list[AnsweredRow], task: Task) -> None:
    """Each row with every metric that is one number for one row."""
    lines = []
    for row in rows:
        per_row = {"accuracy": float(row.reference == row.prediction)}
        if task != "vlm-classify":
            per_row |= row_scores(row.reference or "", row.prediction)
        content = row.model_dump(exclude_none=True) | {name: round(value, 4) for name, value in per_row.items()}
        lines.append(_ROWS.dump_json(content).decode())
    write_text(file, "\n".join(lines) + "\n")


def read_answers(file: Path) -> list[AnsweredRow]:
    return [AnsweredRow.model_validate_json(line) for line in file.read_text().splitlines()]
