"""What each trial took: memory, and time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from hpsearch.errors import NothingToDraw
from hpsearch.search.view import StudyView, TrialView
from hpsearch.trial import GIB, Outcome
from hpsearch.watch.plots.style import GREEN, GREY, ORANGE, SKY, new_figure, styled, time_unit
from hpsearch.watch.plots.trials import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_TRIALS = 150
"""Of more, each one is a point, without its line or its parts."""


@styled()
def memory_figure(view: StudyView) -> Figure:
    """The peak of each trial on its device, where there is one, and on its host.

    Raises NothingToDraw before one was measured.
    """
    device = _amounts(view, _device_gib)
    host = _amounts(view, lambda trial: trial.facts.get("ledger.peak_host_gib"))
    panels = [(name, amounts) for name, amounts in (("device", device), ("host", host)) if amounts]
    if not panels:
        raise NothingToDraw("no trial has reported its memory yet")
    figure, axes = new_figure(1.0 + 2.6 * len(panels), rows=len(panels), sharex=True)
    for (name, amounts), panel in zip(panels, axes, strict=True):
        _draw_points(panel, amounts)
        panel.set_ylabel(f"{name} memory (GiB)")
    if device:
        _draw_limit(axes[0], view, device)
    axes[0].set_title(f"{view.study.name}: the most memory that each trial took")
    axes[-1].set_xlabel("trial")
    for panel in axes:
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _device_gib(trial: TrialView) -> float | None:
    """Of one that ran out of memory, what it needed, where that is known."""
    if trial.outcome == Outcome.OUT_OF_MEMORY and (needed := trial.facts.get("bytes_needed")):
        return float(needed) / GIB
    return trial.facts.get("ledger.peak_device_gib")


def _amounts(view: StudyView, of: Callable[[TrialView], float | None]) -> dict[int, tuple[str, float]]:
    found = {trial.number: (trial.outcome, of(trial)) for trial in view.trials if trial.is_finished}
    return {number: (outcome, amount) for number, (outcome, amount) in found.items() if amount}


def _draw_points(axes: Axes, amounts: dict[int, tuple[str, float]], as_bars: Collection[int] = ()) -> None:
    """Each on a line of its own, or above its bar."""
    is_many = len(amounts) > FEW_TRIALS
    highest = max(amount for _, amount in amounts.values())
    lift = 0.04 * highest
    for outcome, look in LOOKS.items():
        points = [(number, amount) for number, (found, amount) in amounts.items() if found == outcome]
        if not points:
            continue
        colour, title = look["color"], f"{outcome} ({len(points)})"
        numbers = [number for number, _ in points]
        heights = [height + (lift if number in as_bars else 0) for number, height in points]
        if lines := [point for point in points if point[0] not in as_bars and not is_many]:
            ends = [height for _, height in lines]
            axes.vlines([number for number, _ in lines], 0, ends, color=colour, linewidth=1.5, alpha=0.5)
        how: dict[str, Any] = {"markersize": 3, "alpha": 0.6, "rasterized": True} if is_many else {"markersize": 7}
        axes.plot(numbers, heights, linestyle="", color=colour, marker=look.get("end", "o"), label=title, **how)
    axes.set_ylim(0, 1.15 * highest)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_limit(axes: Axes, view: StudyView, device: dict[int, tuple[str, float]]) -> None:
    if (limit := view.study.spec.budget.memory_gib) is not None:
        axes.axhline(limit, color=ORANGE, linestyle="--", linewidth=1.8, label=f"budget.memory_gib: {limit:g}")
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.1 * limit))
    unknown = [t.number for t in view.trials if t.outcome == Outcome.OUT_OF_MEMORY and t.number not in device]
    if unknown:
        top = [0.96 * axes.get_ylim()[1]] * len(unknown)
        look: dict[str, Any] = {"marker": "^", "color": LOOKS["out of memory"]["color"]}
        size = 4 if len(unknown) > FEW_TRIALS else 7
        label = f"out of memory, need unknown ({len(unknown)})"
        axes.plot(unknown, top, linestyle="", markersize=size, label=label, **look)


@styled()
def time_figure(view: StudyView) -> Figure:
    """Of all of a trial's attempts; the last one in its parts, where these are known. Raises NothingToDraw before one
    has ended.
    """
    times = _amounts(view, lambda of: of.seconds)
    if not times:
        raise NothingToDraw("no trial has ended yet")
    unit, unit_s = time_unit(max(seconds for _, seconds in times.values()))
    figure, (axes,) = new_figure(3.8)
    scaled = {number: (outcome, seconds / unit_s) for number, (outcome, seconds) in times.items()}
    in_parts = [trial for trial in view.trials if trial.number in times and "seconds.whole" in trial.facts]
    if len(times) > FEW_TRIALS:
        in_parts = []
    _draw_points(axes, scaled, {trial.number for trial in in_parts})
    _draw_parts(axes, in_parts, {number: seconds for number, (_, seconds) in times.items()}, unit_s)
    axes.set(xlabel="trial", ylabel=unit)
    axes.set_title(f"{view.study.name}: the time that each trial took")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _draw_parts(axes: Axes, known: list[TrialView], times: dict[int, float], unit_s: float) -> None:
    if not known:
        return
    numbers, base = [trial.number for trial in known], [0.0] * len(known)
    loading = [trial.facts["seconds.loading"] / unit_s for trial in known]
    validation = [trial.facts["seconds.validation"] / unit_s for trial in known]
    whole = [trial.facts["seconds.whole"] / unit_s for trial in known]
    training = [max(0.0, w - one - two) for w, one, two in zip(whole, loading, validation, strict=True)]
    rest = [max(0.0, times[trial.number] / unit_s - last) for trial, last in zip(known, whole, strict=True)]
    looks = {
        "loading": (ORANGE, ".."),
        "training": (SKY, ""),
        "validation": (GREEN, "//"),
        "starts and earlier attempts": (GREY, "xx"),
    }
    for (name, (colour, hatch)), heights in zip(looks.items(), (loading, training, validation, rest), strict=True):
        axes.bar(numbers, heights, 0.7, bottom=base, color=colour, hatch=hatch, label=name)
        base = [low + height for low, height in zip(base, heights, strict=True)]
