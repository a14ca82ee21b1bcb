"""DataFrames of the results of studies and runs, and descriptions of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from pydantic import ValidationError

from hpsearch.evaluation import Evaluation
from hpsearch.folders import StorageFolder
from hpsearch.search.facts import FIT
from hpsearch.search.view import StudyView, TrialView, curve
from hpsearch.spec.metrics import LOSS
from hpsearch.trial import GIB, Fit, HistoryPoint, Outcome, Report, report_steps
from hpsearch.watch.document import TrialStatus
from hpsearch.watch.status import study_status

TRIALS = {
    "number": "the trial's number, from 0",
    "outcome": "complete, pruned, diverged, out of memory, failed, running or waiting",
    "value": "of the first objective: the best report of a complete trial, else the last report",
    "seconds": "of its attempts together, without the pauses between them; NaN before it has ended",
    "attempts": "how many workers began or continued it; NA before it has ended",
    "fits_memory": "false where it ran out of memory, or needs more than budget.memory_gib",
    "peak_device_gib": "the most memory that it took of the device, in GiB; NaN or 0 on a CPU",
    "peak_host_gib": "the most memory that it took of the host, in GiB",
    "ledger_closes": "whether it gave back all of its memory",
    "device": "the kind of device that it ran on; NA before it has ended",
    "reason": "why it ended as it did; NA where there is nothing to say",
}
"""Between `value` and `seconds` come a column for each objective, if there are several, and one for each searched
parameter. A metric with the name of one of these columns is `value_NAME`.
"""
CURVES = {
    "trial": "the trial's number",
    "report": "the report's number, from 1",
    "step": "the optimizer step after which it was made; NA where the trial did not end, or ended early by itself",
    "loss": "validation loss, in nats per learned token; NaN where only the trial's folder has it, on another machine",
}
"""Followed by a column for each metric that the trials report."""
HISTORY = {
    "step": "the optimizer step, from 1",
    "loss": "training loss of its batch, in nats per learned token",
    "learning_rate": "the learning rate at this step",
}
RUN_CURVES = {name: words for name, words in CURVES.items() if name != "trial"}
SCORES = {
    "variant": "who answered: the most frequent answer to each question, base or tuned, and under which prompt",
    "metric": "the metric's name; loss is in nats per token of the references",
    "value": "over all test rows",
    "low": "lower end of the 95 % interval; NaN where there are too few groups for one, or all score the same",
    "high": "upper end of the 95 % interval",
}


def trials_frame(view: StudyView, numbers: Sequence[int] | None = None) -> pd.DataFrame:
    """One row for each trial, or for each in `numbers`, in that order."""
    objectives, knobs = view.study.spec.objective_names, list(view.study.spec.searched.space)
    several = {name: _column(name, TRIALS) for name in objectives} if len(objectives) > 1 else {}
    found = {trial.number: trial for trial in study_status(view, with_trials=True).trials or []}
    devices = {trial.number: _device(trial) for trial in view.trials}
    rows = [
        _trial(found[number], devices[number], several, knobs) for number in (found if numbers is None else numbers)
    ]
    frame = pd.DataFrame(rows, columns=[*list(TRIALS)[:3], *several.values(), *knobs, *list(TRIALS)[3:]])
    floats = ("value", *several.values(), "seconds", "peak_device_gib", "peak_host_gib")
    others = {"number": "int64", "attempts": "Int64", "fits_memory": "bool", "ledger_closes": "boolean"}
    words = dict.fromkeys(("outcome", "device", "reason"), "string")
    return frame.astype(dict.fromkeys(floats, "float64") | others | words)


def _trial(trial: TrialStatus, device: str | None, objectives: dict[str, str], knobs: list[str]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "outcome": trial.outcome,
        "value": trial.value,
        **{column: trial.values.get(name) for name, column in objectives.items()},
        **{knob: _hashable(trial.params.get(knob)) for knob in knobs},
        "seconds": trial.seconds,
        "attempts": trial.attempts,
        "fits_memory": trial.fits_memory,
        "peak_device_gib": _gib(trial.peak_device_bytes),
        "peak_host_gib": _gib(trial.peak_host_bytes),
        "ledger_closes": trial.ledger_closes,
        "device": device,
        "reason": trial.reason,
    }


def _hashable(value: Any) -> Any:
    """pandas can't count or group by lists."""
    return tuple(value) if isinstance(value, list) else value


def _column(metric: str, taken: Iterable[str]) -> str:
    """The name of a metric's column: a metric of the user's may have the name of another column."""
    return f"value_{metric}" if metric in taken and metric != LOSS.name else metric


def _device(trial: TrialView) -> str | None:
    """A trial's attributes can be set by anyone, with Optuna's own tools."""
    try:
        return Fit.model_validate_json(trial.facts[FIT]).device
    except (KeyError, ValidationError):
        return None


def _gib(amount: int | None) -> float | None:
    return None if amount is None else round(amount / GIB, 3)


def curves_frame(view: StudyView, storage: StorageFolder) -> pd.DataFrame:
    """One row for each report of each trial. What the store lacks is read from the trials' folders."""
    rows = [row for trial in view.trials for row in _curve(view, trial, storage)]
    return _reports_frame(rows, list(CURVES), [_column(name, CURVES) for name in view.study.spec.objective_names])


def _curve(view: StudyView, trial: TrialView, storage: StorageFolder) -> list[dict[str, Any]]:
    stored: dict[int, dict[str, float]] = {}
    for objective in view.study.spec.objectives:
        for report, value in curve(view, trial, objective).items():
            stored.setdefault(report, {})[_column(objective.name, CURVES)] = value
    folder = storage.trial(view.study.uid, trial.number).last
    more = {report.step: _measured(report) for report in folder.read_journal()} if folder else {}
    steps = _steps(view, trial, list(stored))
    return [
        {"trial": trial.number, "report": number, "step": steps.get(number), **more.get(number, {}), **values}
        for number, values in stored.items()
    ]


def _measured(report: Report) -> dict[str, float]:
    return {LOSS.name: report.loss} | {_column(name, CURVES): value for name, value in report.metrics.items()}


def _steps(view: StudyView, trial: TrialView, reports: list[int]) -> dict[int, int]:
    num_steps = trial.facts.get("optimizer_steps")
    if trial.outcome not in (Outcome.COMPLETE, Outcome.PRUNED) or not isinstance(num_steps, int) or not reports:
        return {}
    last = max(reports) if trial.outcome == Outcome.PRUNED else view.study.spec.budget.reports
    return report_steps(reports, num_steps, last)


def run_curves_frame(reports: Sequence[Report], num_steps: int) -> pd.DataFrame:
    """One row for each report of a complete run."""
    steps = report_steps([report.step for report in reports], num_steps, len(reports))
    rows = [{"report": report.step, "step": steps[report.step], **_measured(report)} for report in reports]
    return _reports_frame(rows, list(RUN_CURVES), [])


def _reports_frame(rows: list[dict[str, Any]], columns: list[str], objectives: list[str]) -> pd.DataFrame:
    metrics = dict.fromkeys([*objectives, *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=[*columns, *(name for name in metrics if name not in columns)])
    whole = dict.fromkeys(columns[:-2], "int64") | {"step": "Int64"}
    return frame.astype(whole | dict.fromkeys((name for name in metrics if name not in whole), "float64"))


def history_frame(points: Sequence[HistoryPoint]) -> pd.DataFrame:
    return pd.DataFrame([point.model_dump() for point in points], columns=list(HISTORY))


def scores_frame(evaluation: Evaluation) -> pd.DataFrame:
    rows = [
        {"variant": variant.name, "metric": name, "value": score.value, "low": score.low, "high": score.high}
        for variant in evaluation.variants
        for name, score in variant.scores.items()
    ]
    losses = [
        {"variant": variant.name, "metric": LOSS.name, "value": variant.loss}
        for variant in evaluation.variants
        if variant.loss is not None
    ]
    frame = pd.DataFrame([*rows, *losses], columns=list(SCORES))
    return frame.astype(dict.fromkeys(("value", "low", "high"), "float64"))
