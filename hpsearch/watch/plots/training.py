"""One run: its losses, its other objectives and its learning rate, over the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpsearch.errors import NothingToDraw
from hpsearch.spec.metrics import LOSS, Metric
from hpsearch.trial import HistoryPoint, Outcome, TrialConfig, TrialResult, report_steps
from hpsearch.watch.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    axis_title,
    new_figure,
    number_axis,
    styled,
)
from hpsearch.watch.words import format_loss, format_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY_STEPS = 60
"""From here on single steps are drawn pale, with their running mean over them."""
Points = list[tuple[float, float]]


@styled()
def training_figure(config: TrialConfig, history: Sequence[HistoryPoint], result: TrialResult) -> Figure:
    """Raises NothingToDraw where nothing was trained."""
    if not history and not result.reports:
        raise NothingToDraw(f"{config.name} ended before its first step: {result.reason or result.outcome}")
    metrics = [metric for metric in config.objectives if metric != LOSS]
    panels = 2 + len(metrics)
    heights = [3.0, *([1.8] * len(metrics)), 1.2]
    figure, axes = new_figure(0.9 + 1.05 * sum(heights), rows=panels, sharex=True, height_ratios=heights)
    steps = _report_steps(config, result)
    for panel in axes[:-1]:
        panel.margins(y=0.15)
    _draw_losses(axes[0], history, _reported(LOSS, result, steps))
    axes[0].set_title(f"{config.name}: {result.outcome}")
    axes[0].set_ylabel(axis_title(LOSS, config.task).removeprefix("validation "))
    for metric, panel in zip(metrics, axes[1:], strict=False):
        points = _reported(metric, result, steps)
        panel.plot(*_unzipped(points), color=GREEN, marker="o", markersize=5)
        _mark_best(panel, metric, points)
        panel.set_ylabel(metric.title)
        number_axis(panel.yaxis, metric)
    rates = axes[-1]
    rates.plot([point.step for point in history], [point.learning_rate for point in history], color=ORANGE)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=False)
    rates.set(ylabel="learning rate", xlabel="optimizer step", ylim=(0, None))
    figure.align_ylabels()
    return figure


def _report_steps(config: TrialConfig, result: TrialResult) -> dict[int, int]:
    """A pruned run ended with its last report."""
    is_cut = result.outcome is Outcome.PRUNED and result.reports
    last = result.reports[-1].step if is_cut else config.budget.reports
    return report_steps([report.step for report in result.reports], result.num_steps, last)


def _reported(objective: Metric, result: TrialResult, steps: dict[int, int]) -> Points:
    there = [report for report in result.reports if objective == LOSS or objective.name in report.metrics]
    points = [(steps[report.step], report.value(objective)) for report in there]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _unzipped(points: Points) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _draw_losses(axes: Axes, history: Sequence[HistoryPoint], validation: Points) -> None:
    trained = [(float(point.step), point.loss) for point in history if math.isfinite(point.loss)]
    steps, losses = _unzipped(trained)
    if len(losses) < _MANY_STEPS:
        axes.plot(steps, losses, color=GREY, linewidth=1.4, label="training, each step")
    else:
        window = len(losses) // 20
        means = np.convolve(losses, np.ones(window) / window, mode="valid")
        axes.plot(steps, losses, color=GREY, linewidth=0.8, alpha=0.4)
        told = [*means, *_unzipped(validation)[1]]
        top = 1.15 * max(told)  # the first batches and a spike must not press all the rest flat
        axes.set_ylim(min(axes.get_ylim()[0], min(told) - 0.05 * top), top)
        higher = f"; single ones up to {format_loss(max(losses))}" if max(losses) > top else ""
        label = f"training, mean of {window} steps{higher}"
        axes.plot(steps[window - 1 :], means, color=GREY, linewidth=2, label=label)
    axes.plot(*_unzipped(validation), color=BLUE, marker="o", markersize=6, label="validation")
    _mark_best(axes, LOSS, validation)
    diverged = [point.step for point in history if not math.isfinite(point.loss)]
    if diverged:
        label = f"NaN or infinite from step {diverged[0]}"
        axes.axvline(diverged[0], color=VERMILION, linestyle=":", linewidth=2, label=label)
    axes.legend(loc="upper right")


def _mark_best(axes: Axes, objective: Metric, points: Points) -> None:
    if not points:
        return
    best = points[0]
    for point in points[1:]:
        best = point if objective.is_better(point[1], best[1]) else best
    axes.plot(*best, marker="*", markersize=15, color=BLUE if objective == LOSS else GREEN, zorder=3)
    offset = (0, 12) if objective.direction == "minimize" else (0, -18)
    axes.annotate(
        format_metric(objective, best[1]), best, offset, textcoords="offset points", ha="center", fontweight="bold"
    )
