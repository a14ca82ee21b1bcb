"""What each trial cost: its time and its peak memory, so that a slow or a large one stands out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hpsearch.errors import NothingToDraw
from hpsearch.search.view import StudyView
from hpsearch.watch.plots.style import BLUE, GREY, SKY, VERMILION, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEVICE, _HOST = "ledger.peak_device_gib", "ledger.peak_host_gib"
_COLOURS = {"complete": SKY, "pruned": GREY}
_LONG_S = 300.0
"""From here on times are shown in minutes."""


@styled()
def costs_figure(view: StudyView) -> Figure:
    """Minutes or seconds, and GiB of the card, or of the host where no card was used, of each ended trial.

    Raises NothingToDraw where no trial's memory is known.
    """
    ended = [trial for trial in view.trials if trial.is_finished and trial.seconds is not None]
    trials = [trial for trial in ended if _HOST in trial.facts]
    if not trials:
        raise NothingToDraw("no trial has told its memory yet")
    place = _DEVICE if any(trial.facts.get(_DEVICE) for trial in trials) else _HOST
    seconds = [trial.seconds or 0.0 for trial in trials]
    unit, divisor = ("minutes", 60.0) if max(seconds) >= _LONG_S else ("seconds", 1.0)
    best = view.best.number if view.best else None
    figure, (times, memory) = new_figure(4.6, rows=2, sharex=True)
    numbers = [trial.number for trial in trials]
    colours = [BLUE if trial.number == best else _COLOURS.get(trial.outcome, VERMILION) for trial in trials]
    times.bar(numbers, [value / divisor for value in seconds], color=colours)
    memory.bar(numbers, [trial.facts.get(place) or 0.0 for trial in trials], color=colours)
    times.set(ylabel=unit)
    memory.set(ylabel=f"peak GiB of the {'card' if place == _DEVICE else 'host'}", xlabel="trial")
    memory.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (times, memory):
        axes.grid(visible=False, axis="x")
    labels = {f"best, trial {best}": BLUE, "complete": SKY, "pruned": GREY, "other ends": VERMILION}
    shown = [Patch(color=colour, label=label) for label, colour in labels.items() if colour in colours]
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown))
    times.set_title(f"{view.study.name}: time and memory of each trial")
    return figure
