"""What each device did when: a row for each, a bar for each attempt of a trial."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hpsearch.errors import NothingToDraw
from hpsearch.search.timeline import Bar, Timeline
from hpsearch.search.times import RUNNING, SILENT
from hpsearch.store.attempts import Ending
from hpsearch.trial import Outcome
from hpsearch.watch.plots.style import (
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAGE,
    SKY,
    VERMILION,
    WIDTH,
    new_figure,
    shortened,
    styled,
    time_unit,
)
from hpsearch.watch.words import format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 40
MOST_IN_A_ROW = 150
_MANY_BARS = 1200
"""From here on bars are pixels inside of the drawing, without edges and numbers: a page stays small."""
_DARK = "#1b1f24"
"""Numbers on bars, in the dark too: bars keep their colours."""
_LOOKS: dict[str, tuple[str, str]] = {
    Outcome.COMPLETE: (SKY, ""),
    Outcome.PRUNED: (GREY, "//"),
    Outcome.DIVERGED: (VERMILION, "\\\\"),
    Outcome.OUT_OF_MEMORY: (VERMILION, ".."),
    Outcome.FAILED: (VERMILION, "xx"),
    RUNNING: (GREEN, ""),
}
"""Colour and hatch of each ending; all others were released."""
_GIVEN_BACK, _LOST = (ORANGE, ""), (ORANGE, "xx")
_STOPS = (Ending.STOPPED, Ending.SET_ASIDE)
_DEATHS = (SILENT, Ending.TRAINER_DIED, Ending.MISTAKE)
_MARK: dict[str, Any] = {"linestyle": "", "color": _DARK, "markeredgecolor": INK}
_MARKS: dict[str, dict[str, Any]] = {
    "stopped": {"marker": "|", "markersize": 13, "markeredgewidth": 2.5},
    "died": {"marker": "x", "markersize": 6, "markeredgewidth": 2},
    "taken over": {"marker": 9, "markersize": 6},  # a caret to the right, its base at the point
}


@styled()
def timeline_figure(study: str, timeline: Timeline) -> Figure:
    """Raises NothingToDraw where no attempt is known."""
    if not timeline.bars:
        raise NothingToDraw("no trial has been claimed yet, or an older hpsearch claimed them")
    whole_s = timeline.seconds
    rows, words = _rows(timeline)
    timeline = _latest(timeline, rows)
    bars = timeline.bars
    if timeline.seconds < whole_s:
        words += f"\n(the last {format_time(timeline.seconds)} of {format_time(whole_s)})"
    figure, (axes,) = new_figure(1.9 + 0.3 * len(rows))
    unit, unit_s = time_unit(timeline.seconds)
    span = max(timeline.seconds, 1e-3)
    _draw_bars(axes, bars, rows, span, unit_s)
    _draw_marks(axes, bars, rows, unit_s)
    if len(bars) < _MANY_BARS:
        _number(axes, bars, rows, span, unit_s)
    for at, length in timeline.pauses:
        axes.axvline(at / unit_s, color=INK, linewidth=1, linestyle=":")
        place = (at / unit_s, 1.0)
        axes.annotate(f"no worker for {format_time(length)}", place, (3, 2), textcoords="offset points",
                      xycoords=("data", "axes fraction"), fontsize=8)  # fmt: skip
    first = {device: min(lane for row, lane in rows if row == device) for device, _ in rows}
    axes.set_yticks(list(rows.values()), [shortened(device) if first[device] == lane else "" for device, lane in rows])
    axes.set(xlim=(-0.01 * span / unit_s, 1.02 * span / unit_s), ylim=(len(rows) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    began = f"{datetime.fromtimestamp(timeline.began_at, UTC):%Y-%m-%d %H:%M} UTC"
    axes.set_xlabel(f"{unit} since {began}" + (", without long pauses" if timeline.pauses else ""))
    axes.set_title(f"{study}: what each device did when{words}", pad=16 if timeline.pauses else None)
    _explain(figure, axes, bars)
    return figure


def _rows(timeline: Timeline) -> tuple[dict[tuple[str, int], int], str]:
    """(device, lane) → its place from above, and what is not shown: the devices that worked least."""
    worked: Counter[str] = Counter()
    lanes: dict[str, int] = {}
    for bar in timeline.bars:
        worked[bar.device] += bar.seconds  # type: ignore[assignment]
        lanes[bar.device] = max(lanes.get(bar.device, 0), bar.lane + 1)
    shown: list[str] = []
    for device, _ in worked.most_common():
        if sum(lanes[each] for each in (*shown, device)) <= MOST_ROWS or not shown:
            shown.append(device)
    places = [
        (device, lane)
        for device in timeline.devices
        if device in shown
        for lane in range(min(lanes[device], MOST_ROWS))
    ]
    words = ""
    if len(shown) < len(lanes):
        words = f"\n(the {len(shown)} of {len(lanes)} devices that worked the longest)"
    elif len(places) < sum(lanes.values()):
        words = f"\n({len(places)} of the {sum(lanes.values())} workers that shared it)"
    return {place: number for number, place in enumerate(places)}, words


def _latest(timeline: Timeline, rows: dict[tuple[str, int], int]) -> Timeline:
    """The bars of these rows, and of those the latest: a row has room for so many."""
    bars = [bar for bar in timeline.bars if (bar.device, bar.lane) in rows]
    by_row: dict[tuple[str, int], list[float]] = {}
    for bar in bars:
        by_row.setdefault((bar.device, bar.lane), []).append(bar.began_s)
    begin = max((times[-MOST_IN_A_ROW] for times in by_row.values() if len(times) > MOST_IN_A_ROW), default=0.0)
    shown = [
        replace(bar, began_s=max(0.0, bar.began_s - begin), ended_s=bar.ended_s - begin)
        for bar in bars
        if bar.ended_s >= begin
    ]
    before = sum(length for at, length in timeline.pauses if at < begin)
    pauses = [(at - begin, length) for at, length in timeline.pauses if at >= begin]
    return replace(timeline, bars=shown, pauses=pauses, began_at=timeline.began_at + begin + before)


def _look(ending: str) -> tuple[str, str]:
    return _LOOKS.get(ending) or (_LOST if ending in _DEATHS else _GIVEN_BACK)


def _draw_bars(axes: Axes, bars: list[Bar], rows: dict[tuple[str, int], int], span: float, unit_s: float) -> None:
    """The shortest ones are wide enough to be seen."""
    by_look: dict[tuple[str, str], list[Any]] = {}
    for bar in bars:
        left, row = bar.began_s / unit_s, rows[bar.device, bar.lane]
        right = max(bar.ended_s, bar.began_s + span / 800) / unit_s
        corners = [(left, row - 0.38), (right, row - 0.38), (right, row + 0.38), (left, row + 0.38)]
        by_look.setdefault(_look(bar.ending), []).append(corners)
    is_many = len(bars) >= _MANY_BARS
    for (colour, hatch), shapes in by_look.items():
        edges: dict[str, Any] = {"edgecolors": "none"} if is_many else {"edgecolors": PAGE, "hatch": hatch}
        axes.add_collection(PolyCollection(shapes, facecolors=colour, linewidths=0.8, rasterized=is_many, **edges))


def _draw_marks(axes: Axes, bars: list[Bar], rows: dict[tuple[str, int], int], unit_s: float) -> None:
    """Where bars stopped or died, and where another worker took over."""
    points = {
        "stopped": [(bar.ended_s, bar) for bar in bars if bar.ending in _STOPS],
        "died": [(bar.ended_s, bar) for bar in bars if bar.ending in _DEATHS],
        "taken over": [(bar.began_s, bar) for bar in bars if bar.is_takeover],
    }
    for kind, found in points.items():
        if found:
            times = [time / unit_s for time, _ in found]
            places = [rows[bar.device, bar.lane] for _, bar in found]
            axes.plot(times, places, label=f"{kind} ({len(found)})", zorder=4, **_MARK, **_MARKS[kind])


def _number(axes: Axes, bars: list[Bar], rows: dict[tuple[str, int], int], span: float, unit_s: float) -> None:
    """The trial's number, where the bar is wide enough: so many inches a character."""
    longest = max(len(shortened(device)) for device, _ in rows)
    inch_s = span / (WIDTH - 0.5 - 0.085 * longest)
    for bar in bars:
        number = "" if bar.trial is None else str(bar.trial)
        if bar.seconds > (0.12 + 0.075 * len(number)) * inch_s:
            middle = (bar.began_s + bar.ended_s) / 2 / unit_s
            place = (middle, rows[bar.device, bar.lane])
            behind = {"facecolor": _look(bar.ending)[0], "edgecolor": "none", "pad": 0.8}
            axes.text(*place, number, ha="center", va="center", fontsize=8.5, color=_DARK, bbox=behind, clip_on=True)


def _explain(figure: Figure, axes: Axes, bars: list[Bar]) -> None:
    """One entry for each ending: its colour, and its mark where it has one."""
    counts = Counter(bar.ending for bar in bars)
    order = [*_LOOKS, *sorted(set(counts) - set(_LOOKS))]
    handles: list[Any] = []
    labels: list[str] = []
    for ending in order:
        if counts[ending]:
            colour, hatch = _look(ending)
            mark = "stopped" if ending in _STOPS else "died" if ending in _DEATHS else None
            marked = [Line2D([], [], **_MARK, **_MARKS[mark])] if mark else []
            handles.append((Patch(facecolor=colour, hatch=hatch, edgecolor=PAGE), *marked))
            labels.append(f"{ending} ({counts[ending]})")
    for line, meaning in zip(*axes.get_legend_handles_labels(), strict=True):
        if meaning.startswith("taken over"):
            handles.append(line)
            labels.append(meaning)
    figure.legend(handles, labels, loc="outside lower left", ncols=4, fontsize=8.5)
