"""Scoring answers: every metric with its interval, and every row with its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from hpsearch.evaluation import Gap, Score, Units, VariantScores
from hpsearch.files import read_file, write_text
from hpsearch.jobs import AnsweredRow
from hpsearch.metrics import (
    COMPUTED,
    SIGNIFICANCE,
    Interval,
    class_scores,
    confusion,
    difference,
    grouped,
    holm,
    interval,
    mean_of,
    row_scores,
    score_difference,
    score_interval,
    scores,
)
from hpsearch.spec.metrics import METRICS, Metric
from hpsearch.spec.tasks import TaskFacts

MOST_CLASSES = 20
"""Answers with at most this many different references, each at least twice on average, are scored as classes too."""


def default_metrics(
    task: TaskFacts, references: Sequence[str], has_bertscore: bool, own: Iterable[Metric] = ()
) -> list[Metric]:
    """The metrics that fit the task; also those over classes if the task learns classes, or the references look like
    classes.
    """
    are_classes = len(set(references)) <= min(MOST_CLASSES, len(references) / 2)
    over = {task.judged_over[0], *(["classes"] if are_classes and "classes" in task.judged_over else [])}
    ours = [metric for metric in METRICS.values() if metric.over in over and (has_bertscore or not metric.needs_model)]
    return [*ours, *(metric for metric in own if task.fits(metric))]


def score_variant(name: str, rows: list[AnsweredRow], metrics: Sequence[Metric]) -> VariantScores:
    """`rows` have references and groups."""
    references, predictions = texts_of(rows)
    losses = [(row.loss, row.num_tokens) for row in rows if row.loss is not None]
    has_classes = any(metric.over == "classes" for metric in metrics)
    return VariantScores(
        name=name,
        scores=score_rows(rows, metrics),
        loss=sum(loss * tokens for loss, tokens in losses) / sum(tokens for _, tokens in losses) if losses else None,
        num_cut=sum(row.is_cut for row in rows),
        classes=class_scores(references, predictions) if has_classes else [],
        confusion=confusion(references, predictions) if has_classes else None,
    )


def score_rows(rows: list[AnsweredRow], metrics: Sequence[Metric]) -> dict[str, Score]:
    """The metrics that the rows have: a metric that can't be computed from text is stored with them, or missing."""
    references, predictions = texts_of(rows)
    groups = groups_of(rows)
    found: dict[str, Score] = {}
    for metric in metrics:
        if metric.name in COMPUTED:
            value = scores(references, predictions, [metric.name])[metric.name]
            found[metric.name] = _score(value, score_interval(references, predictions, metric.name, groups))
        elif numbers := _numbers(rows, metric.name):
            found[metric.name] = _score(sum(numbers) / len(numbers), interval(mean_of(numbers), groups))
    return found


def _score(value: float, around: Interval | None) -> Score:
    return Score(value=value, low=around.low, high=around.high) if around else Score(value=value)


def gap_between(metric: Metric, name: str, rows: list[AnsweredRow], than: str, other: list[AnsweredRow]) -> Gap | None:
    """How much better `rows` are than `other`, the same rows answered by `than`; None where one side lacks the metric.

    Its p-value is for a single test: see `corrected`.
    """
    references, predictions = texts_of(rows)
    if metric.name in COMPUTED:
        found = score_difference(references, texts_of(other)[1], predictions, metric.name, groups_of(rows))
    elif (numbers := _numbers(rows, metric.name)) and (others := _numbers(other, metric.name)):
        found = difference(mean_of(others), mean_of(numbers), groups_of(rows))
    else:
        return None
    return Gap(
        name=name,
        than=than,
        metric=metric,
        difference=found.difference,
        low=found.around.low if found.around else None,
        high=found.around.high if found.around else None,
        p_value=found.p_value,
        shown=found.shown,
        test=found.test,
    )


def corrected(gaps: Sequence[Gap | None]) -> list[Gap]:
    """The given gaps as one family of tests (Holm): with 95 % probability none of those shown is a false one. Metrics
    with the same numbers on every row, as most have where answers are one word, can't err twice: they are one test.
    """
    there = [gap for gap in gaps if gap]
    tests = {gap.test: gap.p_value for gap in there}
    p_values = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [
        gap.model_copy(update={"p_value": p, "shown": p < SIGNIFICANCE, "num_tests": len(tests), "test": ""})
        for gap in there
        for p in [p_values[gap.test]]
    ]


def texts_of(rows: list[AnsweredRow]) -> tuple[list[str], list[str]]:
    """(references, predictions)"""
    return [row.reference or "" for row in rows], [row.prediction for row in rows]


def groups_of(rows: list[AnsweredRow]) -> list[int]:
    return [row.group for row in rows if row.group is not None]


def units_of(name: str, rows: list[AnsweredRow]) -> Units:
    """`name`: the name of a group of these rows. Groups of one row each are rows."""
    groups = grouped(groups_of(rows))
    return Units(name=name if groups.num < len(rows) else "rows", num=groups.num, effective=groups.effective)


def _numbers(rows: list[AnsweredRow], name: str) -> list[float]:
    """The numbers that are stored with the rows: all of them have the metric or none."""
    found = [row.numbers[name] for row in rows if name in row.numbers]
    return found if len(found) == len(rows) else []


_ROWS: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


def write_scored_rows(file: Path, rows: list[AnsweredRow], task: TaskFacts) -> None:
    """Each row with every metric that has a value per row."""
    lines = []
    for row in rows:
        per_row = {"accuracy": float(row.reference == row.prediction)}
        if "texts" in task.judged_over:
            per_row |= row_scores(row.reference or "", row.prediction)
        content = row.model_dump(exclude_none=True) | {name: round(value, 4) for name, value in per_row.items()}
        lines.append(_ROWS.dump_json(content).decode())
    write_text(file, "\n".join(lines) + "\n")


def read_answers(file: Path) -> list[AnsweredRow]:
    """The answers of a variant, with or without stored metrics."""
    return read_file(file, _parsed)


def _parsed(content: bytes) -> list[AnsweredRow]:
    return [AnsweredRow.model_validate_json(line, extra="ignore") for line in content.split(b"\n") if line]
