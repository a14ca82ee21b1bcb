"""A study's trials: their learning curves, and the Pareto front of several objectives."""

from __future__ import annotations

import math
from math import ceil
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from hpsearch.errors import NothingToDraw
from hpsearch.search.view import StudyView, TrialView, curve
from hpsearch.spec.metrics import Metric
from hpsearch.watch.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    axis_title,
    new_figure,
    number_axis,
    styled,
)
from hpsearch.watch.words import format_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, dict[str, Any]] = {
    "complete": {"color": SKY, "linewidth": 1.4},
    "pruned": {"color": GREY, "linewidth": 1.2, "linestyle": "--", "end": "x"},
    "diverged": {"color": VERMILION, "linewidth": 1.2, "linestyle": "--", "end": "X"},
    "out of memory": {"color": VERMILION, "linewidth": 1.2, "linestyle": ":", "end": "s"},
    "failed": {"color": VERMILION, "linewidth": 1.2, "linestyle": "-.", "end": "v"},
    "running": {"color": GREEN, "linewidth": 1.4, "linestyle": ":", "end": ">"},
    "waiting": {"color": GREEN, "linewidth": 1.2, "linestyle": ":", "end": "."},
}
"""Of each outcome; `end` marks where a trial stopped before its time."""
_FAR = 1.5
"""A curve may leave the picture when it lies this many heights of the better half of the complete ones above them."""
_FEW, _VERY_FAR = 10, 3.0
"""Of fewer trials all are seen but those that lie this many times the highest of the better half above it."""


@styled()
def learning_curves_figure(view: StudyView, objective: Metric) -> Figure:
    """Every trial's objective over its reports. Raises NothingToDraw before the first report."""
    curves = {trial.number: _finite(curve(view, trial, objective)) for trial in view.trials}
    if not any(curves.values()):
        raise NothingToDraw("no trial has reported anything yet")
    figure, (axes,) = new_figure(4.6)
    best = view.best.number if view.best else None
    own = next((trial.number for trial in view.trials if trial.facts.get("defaults")), None)

    def reached(number: int) -> str:
        return format_metric(objective, curves[number][_report_that_counts(view.trials[number], curves[number])])

    legend: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for trial in view.trials:
        if trial.number in (best, own) or not curves[trial.number]:
            continue
        counts[trial.outcome] = counts.get(trial.outcome, 0) + 1
        legend[trial.outcome] = _draw(axes, trial, curves[trial.number], **LOOKS[trial.outcome])
    labels = {outcome: f"{outcome} ({count})" for outcome, count in counts.items()}
    if own is not None and own != best and curves[own]:
        outcome = view.trials[own].outcome
        ended = "" if outcome == "complete" else f", {outcome}"
        end = LOOKS[outcome].get("end", "o")
        look = {"color": ORANGE, "linewidth": 2.4, "linestyle": "--", "zorder": 6, "end": end}
        legend["own"] = _draw(axes, view.trials[own], curves[own], **look)
        labels["own"] = f"the file's own values{ended}: {reached(own)}"
    if best is not None:
        is_own = " (the file's own values)" if best == own else ""
        look = {"color": BLUE, "linewidth": 3.2, "zorder": 5, "end": "o"}
        legend["best"] = _draw(axes, view.trials[best], curves[best], **look)
        labels["best"] = f"best, trial {best}{is_own}: {reached(best)}"
    order = list(reversed(legend))
    axes.legend([legend[kind] for kind in order], [labels[kind] for kind in order], loc="best")
    axes.set_title(f"{view.study.name}: {objective.title} of each trial")
    axes.set(xlabel=f"report (of {view.study.spec.budget.reports})", ylabel=axis_title(objective, view.study.spec.task))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _scale(axes, view, objective, curves)
    return figure


def _finite(points: dict[int, float]) -> dict[int, float]:
    return {step: value for step, value in points.items() if math.isfinite(value)}


def _report_that_counts(trial: TrialView, points: dict[int, float]) -> int:
    """The best one of a complete trial, the last one of any other."""
    best = trial.facts.get("best_report")
    return best if isinstance(best, int) and best in points else max(points)


def _draw(axes: Axes, trial: TrialView, points: dict[int, float], *, end: str | None = None, **look: Any) -> Any:
    marked = list(points).index(_report_that_counts(trial, points))
    marks: dict[str, Any] = {"marker": end or ".", "markevery": [marked], "markersize": 8, "markeredgewidth": 2}
    (line,) = axes.plot(list(points), list(points.values()), **look, **marks)
    return line


def _scale(axes: Axes, view: StudyView, objective: Metric, curves: dict[int, dict[int, float]]) -> None:
    """One trial that got lost, even a complete one, must not press all the others flat."""
    number_axis(axes.yaxis, objective)
    if objective.direction == "maximize":
        return
    ended = [curves[t.number] for t in view.trials if t.outcome == "complete" and curves[t.number]]
    better = sorted(ended, key=lambda points: list(points.values())[-1])[: ceil(len(ended) / 2)]
    kept = [value for points in better for value in points.values()]
    everything = [value for points in curves.values() for value in points.values()]
    if not kept:
        return
    low, high = min(everything), max(kept)
    ceiling = high + _FAR * (high - low or abs(high))
    if sum(map(bool, curves.values())) < _FEW:
        ceiling = max(ceiling, high + _VERY_FAR * abs(high))
    above = sum(max(points.values(), default=low) > ceiling for points in curves.values())
    if above:
        seen = [value for points in curves.values() for value in points.values() if value <= ceiling]
        height = max(seen) - low or abs(low)
        axes.set_ylim(low - 0.05 * height, max(seen) + 0.12 * height)
        note = f"{above} {'trial reaches' if above == 1 else 'trials reach'} above this"
        axes.annotate(note, (0.01, 0.97), xycoords="axes fraction", va="top", fontsize=9)


@styled()
def trade_off_figure(view: StudyView) -> Figure:
    """The complete trials by their first two objectives. Raises NothingToDraw where there is one, or no trial."""
    objectives = view.study.spec.objectives[:2]
    complete = [trial for trial in view.trials if len(trial.values) > 1]
    if len(objectives) < 2 or not complete:
        raise NothingToDraw("a Pareto front needs two objectives and a complete trial")
    figure, (axes,) = new_figure(4.6)
    front = sorted(view.front, key=lambda trial: trial.values)
    axes.scatter(*_pairs(complete), color=SKY, s=45, label=f"complete ({len(complete)})")
    axes.plot(*_pairs(front), color=BLUE, marker="o", markersize=9, linewidth=1.2, label="Pareto front")
    for trial in front:
        place = (trial.values[0], trial.values[1])
        axes.annotate(f"trial {trial.number}", place, (8, 7), textcoords="offset points", fontweight="bold")
    formats = [axes.xaxis, axes.yaxis]
    for objective, axis in zip(objectives, formats, strict=True):
        number_axis(axis, objective)
    across, up = (axis_title(objective, view.study.spec.task) for objective in objectives)
    axes.set(xlabel=across, ylabel=up)
    axes.margins(0.12)
    axes.set_title(f"{view.study.name}: {' against '.join(objective.title for objective in objectives)}")
    axes.legend(loc="best")
    return figure


def _pairs(trials: list[TrialView]) -> tuple[list[float], list[float]]:
    return [trial.values[0] for trial in trials], [trial.values[1] for trial in trials]
