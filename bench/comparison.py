"""What a benchmark finds: numbers of two sides, their ratio, and the table that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Side:
    """One way of doing it, and what was measured of it; the n-th value of both sides belong together."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """`values` of both sides are in `unit`, above 0, and smaller is better; `no_ratio` says why there is none."""

    measured: str
    unit: str
    hpsearch: Side
    other: Side
    no_ratio: str | None = None

    def ratio(self) -> str:
        """Other ÷ hpsearch: the median over the pairs, and the range."""
        if self.no_ratio:
            return f"none: {self.no_ratio}"
        ratios = [other / own for own, other in zip(self.hpsearch.values, self.other.values, strict=True)]
        if len(ratios) == 1:
            return f"{ratios[0]:.2f}×"
        return f"{median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"

    def cells(self) -> tuple[str, str, str, str]:
        own, other = (f"{side.name}: {median(side.values):,.3f} {self.unit}" for side in (self.hpsearch, self.other))
        return self.measured, own, other, self.ratio()


@dataclass(frozen=True)
class NotMeasured:
    measured: str
    why: str

    def cells(self) -> tuple[str, str, str, str]:
        return self.measured, "not measured", "not measured", self.why


Finding = Comparison | NotMeasured
Say = Callable[[str], None]
"""Progress for a person: one line."""


HEADINGS = ("measured", "hpsearch's way", "the other way", "ratio", "again with")


def as_table(findings: Sequence[tuple[str, Finding]]) -> Table:
    """One row for each (benchmark's name, finding)."""
    table = Table(title="medians; ratio = the other way ÷ hpsearch's way", show_lines=True)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for name, finding in findings:
        table.add_row(*map(Text, finding.cells()), f"python -m bench {name}")
    return table
