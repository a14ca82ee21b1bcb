"""All variants that answered the test rows: base and tuned model under each prompt, and the baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hpsearch.errors import NothingToDraw
from hpsearch.evaluation import Evaluation, Score, VariantScores, alike
from hpsearch.metrics import Interval
from hpsearch.spec.metrics import Metric
from hpsearch.watch.evaluation import format_units
from hpsearch.watch.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PAGE,
    WIDTH,
    label_bars,
    new_figure,
    number_axis,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_A_ROW = 3
_BAR = 0.38
_MODELS = {"base": GREY, "tuned": BLUE}


@styled()
def configurations_figure(evaluation: Evaluation) -> Figure:
    """A panel for each metric, one for those with the same numbers.

    Raises NothingToDraw where no metric was computed.
    """
    metrics = [
        group
        for group in alike(evaluation.metrics, evaluation.variants)
        if any(variant.scores.get(group[0].name) for variant in evaluation.variants)
    ]
    if not metrics:
        raise NothingToDraw("the evaluation has no metrics")
    columns = min(_PANELS_A_ROW, len(metrics))
    rows = -(-len(metrics) // columns)
    width = WIDTH if columns > 1 else 0.65 * WIDTH
    sharey = all(_is_part(metric) for metric, *_ in metrics)
    figure, panels = new_figure(0.9 + 2.5 * rows, rows=rows, columns=columns, sharey=sharey, width=width)
    for (metric, *others), axes in zip(metrics, panels, strict=False):
        _draw_metric(axes, evaluation, metric)
        more = f"\nand {len(others)} just the same" if others else ""
        axes.set_title(f"{metric.title}{more}", fontweight="normal")
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(_title(evaluation), x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _title(evaluation: Evaluation) -> str:
    if not evaluation.resampled.are_enough:
        return f"{evaluation.num_rows} test rows"
    return f"{evaluation.num_rows} test rows, with 95 % intervals {format_units(evaluation.resampled)}"


def _draw_metric(axes: Axes, evaluation: Evaluation, metric: Metric) -> None:
    prompts = list(dict.fromkeys(_prompt(variant) for variant in evaluation.models))
    for offset, (model, colour) in zip((-_BAR / 2, _BAR / 2), _MODELS.items(), strict=True):
        variants = [
            variant for variant in evaluation.models if _model(variant) == model and metric.name in variant.scores
        ]
        if not variants:
            continue
        scores = [variant.scores[metric.name] for variant in variants]
        at = [prompts.index(_prompt(variant)) + offset for variant in variants]
        values = [score.value for score in scores]
        around = _around(scores) if evaluation.resampled.are_enough else None
        look: dict[str, Any] = {"ecolor": INK, "capsize": 3, "error_kw": {"elinewidth": 1.3}}
        axes.bar(at, values, _BAR, color=colour, label=f"{model} model", yerr=around, **look)
        places = [(x, _bounds(score).high) for x, score in zip(at, scores, strict=True)]
        behind = {"facecolor": PAGE, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        label_bars(axes, values, places, metric, xytext=(0, 5), ha="center", bbox=behind)
    guess = evaluation.guess
    if guess and (score := guess.scores.get(metric.name)):
        axes.axhspan(_bounds(score).low, _bounds(score).high, color=ORANGE, alpha=0.15, linewidth=0)
        axes.axhline(score.value, color=ORANGE, linestyle="--", linewidth=1.8, label=guess.name)
    names = [f"{prompt} prompt" if prompt == "no" else prompt for prompt in prompts] if len(prompts) > 1 else [""]
    axes.set_xticks(range(len(prompts)), names)
    axes.set(xlim=(-0.6, len(prompts) - 0.4))
    if _is_part(metric):
        axes.set(ylim=(0, 1.1))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    else:
        axes.margins(y=0.15)
    number_axis(axes.yaxis, metric)
    axes.grid(visible=False, axis="x")


def _is_part(metric: Metric) -> bool:
    """Of a whole: panels of such metrics have one axis."""
    return (metric.unit, metric.low, metric.high) == ("share", 0, 1)


def _model(variant: VariantScores) -> str:
    return variant.name.partition("-")[0]


def _prompt(variant: VariantScores) -> str:
    return variant.name.partition("-")[2] or "no"


def _around(scores: list[Score]) -> list[list[float]]:
    """How far the interval goes below and above each value; NaN, which is not drawn, where there is none."""
    ends = [score.interval or Interval(math.nan, math.nan) for score in scores]
    return [
        [score.value - around.low for score, around in zip(scores, ends, strict=True)],
        [around.high - score.value for score, around in zip(scores, ends, strict=True)],
    ]


def _bounds(score: Score) -> Interval:
    """The value itself where there is no interval."""
    return score.interval or Interval(score.value, score.value)
