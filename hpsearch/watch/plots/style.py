"""How every plot looks, and how it is written to a file.

INK, GRID and PAGE are never used for data: in a dark page a report replaces them by the page's own colours.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import seaborn
from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from hpsearch.files import draft_of
from hpsearch.spec.metrics import LOSS, Metric
from hpsearch.spec.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK, GRID, PAGE = "#24292f", "#d8dee4", "#fffffe"
BLUE, ORANGE, GREEN, VERMILION, _, _, _, GREY, _, SKY = seaborn.color_palette("colorblind").as_hex()
WIDTH = 8.0
"""Inches; at 150 dots per inch a picture is 1,200 pixels wide."""
LONGEST_NAME = 28

_OTHER_ALPHABETS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "Arial Unicode MS")
_SETTINGS: dict[str, Any] = {
    **seaborn.axes_style("ticks"),
    **seaborn.plotting_context("notebook", font_scale=0.92),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "patch.edgecolor"), PAGE),
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11.5,
    "grid.color": GRID,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
    "svg.hashsalt": "hpsearch",  # the same picture is the same file
    "text.parse_math": False,  # a class may be called $1 or a_$b$
}


@contextmanager
def styled() -> Iterator[None]:
    """Our settings, for drawing and for writing alike. Use as a decorator too."""
    there = set(font_manager.get_font_names())
    fonts = ["DejaVu Sans", *(font for font in _OTHER_ALPHABETS if font in there)]
    settings: Any = _SETTINGS | {"font.family": fonts}
    with rc_context(settings), warnings.catch_warnings():
        # A letter that no font has is drawn as a box; labels keep their words in every table.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def new_figure(
    height: float, *, rows: int = 1, columns: int = 1, width: float = WIDTH, **grid: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches and its axes, row by row; `grid` as `Figure.subplots` takes it."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    return figure, list(axes.flat)


def axis_title(objective: Metric, task: str) -> str:
    """With its unit."""
    return f"{objective.title} ({TASKS[task].loss_unit})" if objective == LOSS else objective.title


def number_axis(axis: Axis, metric: Metric) -> None:
    """Shares in percent."""
    if metric.unit == "share":
        axis.set_major_formatter(as_percent())


def as_percent(decimals: int = 0) -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:.{decimals}%}")


def time_unit(longest_s: float) -> tuple[str, float]:
    """The unit of an axis that goes up to so many seconds, and the unit's own seconds."""
    for unit, unit_s in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if longest_s >= 3 * unit_s:
            return unit, unit_s
    return "seconds", 1.0


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def label_bars(
    axes: Axes, values: Sequence[float], at: Sequence[tuple[float, float]], metric: Metric | None = None, **words: Any
) -> None:
    """Writes each value at its place: as a share, unless the metric is none."""
    is_share = metric is None or metric.unit == "share"
    for value, place in zip(values, at, strict=True):
        axes.annotate(
            f"{value:.0%}" if is_share else f"{value:.3g}", place, textcoords="offset points", fontsize=9, **words
        )


@styled()
def as_svg(figure: Figure) -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


@styled()
def as_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png and NAME.svg; a reader never sees half of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {f"{name}.png": as_png(figure), f"{name}.svg": as_svg(figure).encode()}
    for file, content in contents.items():
        draft = draft_of(folder / file)
        draft.write_bytes(content)
        draft.replace(folder / file)
    return [folder / file for file in contents]
