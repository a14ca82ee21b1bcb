"""Tables that leave columns out where a terminal has no room for them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_LEGIBLE = 22
"""Characters in a line of parameters: enough for `learning_rate 0.000911`."""
_ANY_WIDTH = 10_000


@dataclass(frozen=True)
class Fitting:
    """A table without the columns for which a narrow terminal has no room beside its last one."""

    more: tuple[str, ...]
    """Which may be left out, the last ones first."""
    table: Callable[[Collection[str]], Table]
    """The table without these."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        without: tuple[str, ...] = ()
        table = self.table(without)
        for name in reversed(self.more):
            if _width(table, console, options) <= options.max_width:
                break
            without = (name, *without)
            table = self.table(without)
        yield table
        if without:
            yield Text(f"a wider terminal shows {', '.join(without)} too", style="bright_black")


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """Of all columns as they are and just enough of the last one. rich takes the longest word of a column for the
    least that it needs, also where it may not be wrapped (15.0, table.py, `_measure_column`).
    """
    last = table.columns[-1]
    last.max_width = _LEGIBLE
    try:
        return Measurement.get(console, options.update(width=_ANY_WIDTH), table).maximum
    finally:
        last.max_width = None
