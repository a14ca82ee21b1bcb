"""Comparing final runs on the same held-out rows: each against the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from hpsearch.errors import InputError
from hpsearch.evaluation import ComparedRun, Comparison, Evaluation
from hpsearch.jobs import AnsweredRow, Tell, Variant
from hpsearch.metrics import joined
from hpsearch.results.final import RunFolder
from hpsearch.results.scoring import (
    corrected,
    default_metrics,
    gap_between,
    groups_of,
    read_answers,
    score_rows,
    texts_of,
    units_of,
)
from hpsearch.spec.evaluation import PromptName
from hpsearch.spec.metrics import Metric
from hpsearch.spec.tasks import TASKS, TaskFacts
from hpsearch.spec.training import BudgetSpec


@dataclass(frozen=True)
class _Answers:
    """A run's answers to its test rows. `rows`: checksum of the content → answer; `train`: checksums."""

    name: str
    task: TaskFacts
    metrics: list[Metric]
    unit: str
    rows: dict[str, AnsweredRow]
    train: set[str]
    budget: BudgetSpec


def compare_runs(folders: Sequence[RunFolder], prompt: PromptName, tell: Tell, *, common: bool) -> Comparison:
    """Scores of the tuned models with `prompt`, and each one's difference to the first. `common`: on the rows that all
    of them answered, where these are not the same.

    Raises:
        InputError: fewer than two runs, one that is not evaluated, or runs on different rows.
    """
    if len({folder.path for folder in folders}) < max(2, len(folders)):
        raise InputError("a comparison takes two or more different runs")
    names = _names(folders)
    variant = Variant(model="tuned", prompt=prompt).name
    runs = [_read(folder, name, variant, prompt) for folder, name in zip(folders, names, strict=True)]
    keys = _common_rows(runs, common)
    answers = _grouped({run.name: [run.rows[key] for key in keys] for run in runs})
    metrics = _metrics(runs, answers[runs[0].name])
    compared, gaps = [], []
    first = runs[0].name
    for done, run in enumerate(runs):
        tell("comparing", done, len(runs))
        rows = answers[run.name]
        scores = score_rows(rows, metrics)
        leaked = len(run.train.intersection(keys))
        compared.append(
            ComparedRun(name=run.name, scores=scores, num_rows=len(run.rows), leaked=leaked, budget=run.budget)
        )
        if run.name != first:
            gaps += [gap_between(metric, run.name, rows, first, answers[first]) for metric in metrics]
    units = [run.unit for run in runs]
    return Comparison(
        num_rows=len(keys),
        variant=variant,
        metrics=metrics,
        runs=compared,
        gaps=corrected(gaps),
        units=units_of(units[0] if len(set(units)) == 1 else "groups", answers[first]),
    )


def _grouped(answers: dict[str, list[AnsweredRow]]) -> dict[str, list[AnsweredRow]]:
    """Rows in one group for any of the runs are in one group for all: their studies may define groups differently."""
    groups = joined(*map(groups_of, answers.values()))
    return {
        name: [row.model_copy(update={"group": group}) for row, group in zip(rows, groups, strict=True)]
        for name, rows in answers.items()
    }


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """The folders' names, or as much of their paths as distinguishes them."""
    for depth in range(1, max(len(folder.path.parts) for folder in folders) + 1):
        names = ["/".join(folder.path.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths differ somewhere")


def _read(folder: RunFolder, name: str, variant: str, prompt: PromptName) -> _Answers:
    file, manifest, config = folder.load()
    scores, answers = folder.scores / "scores.json", folder.scores / f"{variant}.jsonl"
    if not scores.exists() or not answers.exists():
        option = "" if prompt == "none" else f" --prompts none,{prompt}"
        what = "is not evaluated yet" if not scores.exists() else f"has no answers of {variant}"
        raise InputError(f"{folder.path} {what}: hpsearch evaluate {folder.path}{option}")
    known = dict(manifest.splits["test"])
    rows = {known[row.id]: row for row in read_answers(answers)}
    evaluation = folder.read(Evaluation, scores)
    if any(row.group is None for row in rows.values()):
        raise InputError(
            f"{folder.path} was evaluated by an earlier hpsearch, which took all rows as independent: "
            f"hpsearch evaluate {folder.path} computes its scores again, without generating answers again"
        )
    train = {sha256 for _, sha256 in manifest.splits["train"]}
    task, unit = TASKS[file.spec.task], evaluation.resampled.name
    return _Answers(name, task, evaluation.metrics, unit, rows, train, config.budget)


def _common_rows(runs: Sequence[_Answers], common: bool) -> list[str]:
    """Checksums of the rows to compare on, in the order of the first run."""
    first = runs[0]
    keys = [key for key in first.rows if all(key in run.rows for run in runs)]
    if all(len(run.rows) == len(keys) for run in runs):
        return keys
    sizes = ", ".join(f"{run.name} on {len(run.rows)}" for run in runs)
    if not keys:
        raise InputError(f"these runs were evaluated on different rows ({sizes}) and have none in common{_why(runs)}")
    if not common:
        raise InputError(
            f"these runs were evaluated on different rows ({sizes}; {len(keys)} in common): "
            "--common compares them on those"
        )
    return keys


def _why(runs: Sequence[_Answers]) -> str:
    """A hint about the cause: rows with the same id but different content."""
    for a, b in combinations(runs, 2):
        ids = {row.id for row in a.rows.values()} & {row.id for row in b.rows.values()}
        if ids:
            return f": {len(ids)} rows of {a.name} and {b.name} share their id, but not their content"
    return ""


def _metrics(runs: Sequence[_Answers], rows: list[AnsweredRow]) -> list[Metric]:
    """The metrics that all evaluations have, or else those that fit the rows."""
    shared = [metric for metric in runs[0].metrics if all(metric in run.metrics for run in runs)]
    narrowest = min((run.task for run in runs), key=lambda task: len(task.judged_over))
    return shared or default_metrics(narrowest, texts_of(rows)[0], False)
