"""A figure: what was measured, the result, and what it is compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table
from rich.text import Text

MARK = "figure: "
"""How a part's process says one, on a line of its stdout."""


@dataclass(frozen=True)
class Figure:
    part: str
    measured: str
    found: str
    goal: str = ""

    def told(self) -> str:
        return MARK + json.dumps(asdict(self))

    def cells(self) -> tuple[str, str, str, str]:
        return self.measured, self.found, self.goal, f"python -m bench.gpu {self.part}"


HEADINGS = ("measured", "found", "goal", "again with")


def not_measured(part: str, why: str) -> Figure:
    return Figure(part, WHAT[part], f"not measured: {why}", GOALS.get(part, ""))


WHAT = {
    "product": "a plain bf16 product",
    "steps": "steps with each mechanism alone and with all, auto's prediction, FLOP/s of the language part",
    "race": "trials per hour against the tutorial's loop",
    "oom": "a forward that does not fit",
    "ledger": "50 trials in one process, seen by NVML from outside",
    "paged": "what a paged optimizer leaves",
    "tests": "tests/gpu",
}
"""Every part, in the order in which they run."""
GOALS = {
    "steps": "prediction within 10 %; 40 % of the plain product's FLOP/s at auto's micro-batch",
    "race": "5 times as many at least",
    "ledger": "no growth",
    "tests": "all pass",
}


def from_line(line: str) -> Figure | None:
    return Figure(**json.loads(line.removeprefix(MARK))) if line.startswith(MARK) else None


def as_table(figures: Sequence[Figure], title: str) -> Table:
    table = Table(title=title, show_lines=True)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for figure in figures:
        table.add_row(*map(Text, figure.cells()))
    return table
