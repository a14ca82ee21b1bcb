"""The console that every verb prints on.

Verbs print text that others wrote: a description, a row's id, a library's error. rich would take `[img]` in it for
markup, `:bug:` for an emoji, and `[/img]` for a fatal mistake, so all of that is off here; styles come from `Text` and
from tables.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

_ANY_WIDTH = 10_000


class _Console(Console):
    """On a terminal, long lines are wrapped between words, and a path is never torn: whoever prints with `soft_wrap`
    leaves the wrapping to the terminal, which tears words. On a pipe a line stays a line.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        if self.is_terminal and options.get("soft_wrap", self.soft_wrap):
            objects = tuple(_wrapped(part, self.width) if isinstance(part, str | Text) else part for part in objects)
        super().print(*objects, **options)


def _wrapped(words: str | Text, width: int) -> Text:
    """rich's own wrapping tears or cuts a word that is longer than a line (15.0, text.py, `Text.wrap`)."""
    lines = (words if isinstance(words, Text) else Text(words)).split("\n", allow_blank=True)
    parts = [part for line in lines for part in line.divide(_breaks(line.plain, width))]
    for part in parts:
        part.rstrip()  # else a line that fits exactly has one space too many, and the terminal an empty line
    return Text("\n").join(parts)


def _breaks(line: str, width: int) -> list[int]:
    """The words that begin a new line; a first one that is too long begins none."""
    breaks, used = [], 0
    for word in re.finditer(r"\s*\S+\s*", line):
        if used and used + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            used = 0
        used += cell_len(word[0])
    return breaks


def print_table(console: Console, table: RenderableType) -> None:
    """In its natural width where lines may have any length."""
    if line_width(console) is not None:
        return console.print(table)
    wide = console.options.update(width=_ANY_WIDTH)
    width = Measurement.get(console, wide, table).maximum
    for line in console.render_lines(table, wide.update(width=width), pad=False):
        console.print(Text("".join(segment.text for segment in line).rstrip()), soft_wrap=True)
    return None


def show_phase(bar: Progress, name: str, done: int, total: int, note: str = "") -> None:
    """A new phase has a new bar: that of a phase which is complete stays complete, its clock stands still, and `update`
    takes a total of None for "as before" (rich 15.0, progress.py).
    """
    (task,) = bar.tasks
    count = f"{done}/{total}" if total else ""
    if task.description == name:
        bar.update(task.id, completed=done, total=total or None, count=count, note=note)
    else:
        bar.remove_task(task.id)
        bar.add_task(name, completed=done, total=total or None, count=count, note=note)


def line_width(console: Console) -> int | None:
    """Letters in a line; None where lines may have any length."""
    return console.width if console.is_terminal else None


def open_console(**options: Any) -> Console:
    """A console for standard output unless `options`, which are rich's own, say otherwise.

    Only a terminal counts as one. rich also takes a pipe for a terminal where $FORCE_COLOR is set (15.0, console.py,
    `is_terminal`), as Jupyter and some CI services do: their cells and logs would be full of progress bars.
    """
    if "force_terminal" not in options:
        file = options.get("file") or (sys.stderr if options.get("stderr") else sys.stdout)
        options["force_terminal"] = file.isatty()
    return _Console(markup=False, emoji=False, highlight=False, **options)
