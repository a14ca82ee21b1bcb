"""Plots: each function takes data and returns a matplotlib Figure, drawn by Agg.

pyplot is not used, so no figure and no setting outlives a call. A plot that can't be drawn yet raises NothingToDraw
with the text to show in its place. Colours are seaborn's colour-blind palette; no meaning depends on colour alone.
"""

from hpsearch.watch.plots.classes import classes_figure, confusion_figure
from hpsearch.watch.plots.configurations import configurations_figure
from hpsearch.watch.plots.importance import importance_figure
from hpsearch.watch.plots.resources import memory_figure, time_figure
from hpsearch.watch.plots.style import as_png, as_svg, save_figure
from hpsearch.watch.plots.timeline import timeline_figure
from hpsearch.watch.plots.training import training_figure
from hpsearch.watch.plots.trials import learning_curves_figure, trade_off_figure

__all__ = [
    "as_png",
    "as_svg",
    "classes_figure",
    "configurations_figure",
    "confusion_figure",
    "importance_figure",
    "learning_curves_figure",
    "memory_figure",
    "save_figure",
    "time_figure",
    "timeline_figure",
    "trade_off_figure",
    "training_figure",
]
