"""Classes: the confusion matrix, and precision and recall of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from hpsearch.errors import NothingToDraw
from hpsearch.evaluation import Evaluation, VariantScores
from hpsearch.metrics import Confusion, in_order
from hpsearch.watch.plots.style import (
    BLUE,
    GREY,
    GRID,
    INK,
    as_percent,
    label_bars,
    new_figure,
    shortened,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 20
"""Of more, the ones with the most rows are drawn, and what was taken for one of the others is put together."""
_COUNTED_CLASSES = 12
"""Up to this many classes each field of the confusion matrix has its share under its count."""
_SHARE = LinearSegmentedColormap.from_list("share", [(*to_rgb(BLUE), 0.0), (*to_rgb(BLUE), 1.0)])
_DARK = 0.55
"""From this share on the text of a field is light."""


@styled()
def confusion_figure(variant: VariantScores) -> Figure:
    """Confusion matrix: predictions for the rows of each class, as shares of the class.

    Raises NothingToDraw where the answers are not classes.
    """
    if variant.confusion is None:
        raise NothingToDraw("the answers are not classes")
    labels, columns, counts = _shown(variant.confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size = max(2.6, 0.62 * len(labels)) if len(labels) <= _COUNTED_CLASSES else 0.38 * len(labels)
    figure, (axes,) = new_figure(size + 1.7, width=max(5.0, size * len(columns) / len(labels) + 2.2))
    seaborn.heatmap(shares, ax=axes, cmap=_SHARE, vmin=0, vmax=1, cbar=False, square=True, linewidths=1, linecolor=GRID)
    with_share = len(labels) <= _COUNTED_CLASSES
    for (row, column), count in np.ndenumerate(counts):
        if not count:
            continue
        share = shares[row, column]
        number = f"{count}\n{share:.0%}" if with_share else f"{count}"
        colour = "#ffffff" if share >= _DARK else INK
        axes.text(column + 0.5, row + 0.5, number, ha="center", va="center", color=colour, fontsize=9.5)
    axes.grid(visible=False)
    axes.set_xticklabels([shortened(name) for name in columns], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticklabels([shortened(name) for name in labels], rotation=0)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    title = f"{variant.name} model, test rows"
    hidden = len(variant.confusion.labels) - len(labels)
    axes.set_title(f"{title}: the {len(labels)} largest of {len(labels) + hidden} classes" if hidden else title)
    return figure


def _shown(confusion: Confusion) -> tuple[list[str], list[str], np.ndarray]:
    """Labels, columns and counts (labels, columns), in order, without empty ones and those beyond the limit."""
    counts = np.array(confusion.matrix)
    columns = confusion.columns
    labels = confusion.labels[:MOST_CLASSES]
    if len(labels) < len(confusion.labels):
        hidden = counts[:, len(labels) : -1].sum(axis=1, keepdims=True)
        counts = np.hstack([counts[:, : len(labels)], hidden, counts[:, -1:]])[: len(labels)]
        columns = [*labels, "another class", columns[-1]]
    order = [labels.index(label) for label in in_order(labels)]
    others = range(len(labels), len(columns))
    counts, labels = counts[np.ix_(order, [*order, *others])], in_order(labels)
    columns = [*labels, *columns[len(labels) :]]
    if not counts[:, -1].any():
        counts, columns = counts[:, :-1], columns[:-1]
    return labels, columns, counts


@styled()
def classes_figure(evaluation: Evaluation) -> Figure:
    """The share of each class's rows that was found, by the tuned model and the base where that was asked.

    Raises NothingToDraw where the answers are not classes.
    """
    tuned = evaluation.tuned
    if not tuned.classes:
        raise NothingToDraw("the answers are not classes")
    largest = {each.label for each in tuned.classes[:MOST_CLASSES]}
    classes = [each for each in tuned.ordered_classes if each.label in largest]
    names = [f"{shortened(each.label)} ({each.support})" for each in classes]
    figure, (axes,) = new_figure(1.5 + 0.5 * len(classes))
    bars = {f"{tuned.name} model": (-0.19, BLUE, [each.accuracy for each in classes])}
    if base := evaluation.base:
        found = {each.label: each.accuracy for each in base.classes}
        bars[f"{base.name} model"] = (0.19, GREY, [found[each.label] for each in classes])
    for label, (offset, colour, values) in bars.items():
        at = np.arange(len(classes)) + offset
        axes.barh(at, values, 0.36, color=colour, label=label)
        label_bars(axes, values, list(zip(values, at, strict=True)), xytext=(4, 0), va="center")
    axes.set_yticks(range(len(names)), names)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 1.08), xlabel="accuracy of the class (test rows in brackets)")
    axes.xaxis.set_major_formatter(as_percent())
    hidden = len(tuned.classes) - len(classes)
    axes.set_title(f"accuracy of the {len(classes)} largest classes of {len(tuned.classes)}" if hidden else "classes")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
