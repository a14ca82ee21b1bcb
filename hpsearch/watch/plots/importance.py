"""Parameter importances as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpsearch.errors import NothingToDraw
from hpsearch.search.importance import Importance
from hpsearch.watch.plots.style import BLUE, GREEN, ORANGE, VERMILION, as_percent, label_bars, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_KNOBS = 15
_COLOURS = (BLUE, ORANGE, GREEN, VERMILION)


@styled()
def importance_figure(study: str, importances: list[Importance]) -> Figure:
    """One panel for each objective, the parameters in the order of the first one's.

    Raises NothingToDraw where no importance is known.
    """
    if not importances:
        raise NothingToDraw("importance needs two complete trials with different results")
    knobs = list(importances[0].shares)[:_MOST_KNOBS]
    figure, panels = new_figure(1.2 + 0.42 * len(knobs), columns=len(importances), sharey=True)
    between = " of " if len(importances) == 1 else "\nof "
    for importance, axes, colour in zip(importances, panels, _COLOURS * len(importances), strict=False):
        shares = [importance.shares.get(knob, 0.0) for knob in knobs]
        axes.barh(knobs, shares, color=colour, height=0.65)
        places = [(share, position) for position, share in enumerate(shares)]
        label_bars(axes, shares, places, xytext=(4, 0), va="center")
        axes.grid(visible=False, axis="y")
        axes.set(xlim=(0, 1.12 * max(shares)), xlabel=f"share of the variance{between}{importance.objective.title}")
        axes.xaxis.set_major_formatter(as_percent())
    panels[0].invert_yaxis()
    title = f"{study}: parameter importances (fANOVA), from {importances[0].num_trials} complete trials"
    panels[0].set_title(title)
    return figure
