"""`python -m bench.gpu [PART…]`: every part in a process of its own, inside of eight minutes, then one table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.gpu.figures import HEADINGS, WHAT, Figure, as_table, not_measured
from bench.gpu.process import has_card, run_part
from bench.machine import describe, offline_console
from bench.results import has_section, write_section

TIME_S = 8 * 60.0
MOST_S = {"product": 30.0, "steps": 150.0, "race": 120.0, "oom": 40.0, "ledger": 45.0, "paged": 40.0, "tests": TIME_S}
"""Of each part; what one leaves over is there for those behind it. The tests come last and have what is left."""
REHEARSAL_S = 3600.0
TITLE = "On one card"
NO_CARD = "no card was at hand"


def main() -> int:
    """The exit code: 1 when a part failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="What only a card can tell.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(WHAT)}")
    parser.add_argument("--rehearse", action="store_true", help="every part on the CPU with tiny bases")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the table into this file")
    chosen = parser.parse_args()
    parts = chosen.parts or list(WHAT)
    if unknown := [part for part in parts if part not in WHAT]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(WHAT)}")
    console = offline_console()
    machine = describe()
    for line in machine:
        console.print(line, highlight=False)
    figures, failed = measure(parts, console, rehearses=chosen.rehearse)
    title = "rehearsal: every part ran, and its numbers say nothing" if chosen.rehearse else TITLE
    console.print(as_table(figures, title))
    is_measured = any(not figure.found.startswith("not measured") for figure in figures)
    if chosen.results and not chosen.rehearse and (is_measured or not has_section(chosen.results, TITLE)):
        write_section(chosen.results, TITLE, machine, HEADINGS, [figure.cells() for figure in figures])
    return 1 if failed else 0


def measure(parts: list[str], console: Console, *, rehearses: bool) -> tuple[list[Figure], bool]:
    """(figures of all parts, whether one failed)"""
    if not rehearses and not has_card():
        return [not_measured(part, NO_CARD) for part in parts], False
    if rehearses:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:  # one card, whatever the machine has
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    deadline = time.monotonic() + (REHEARSAL_S if rehearses else TIME_S)
    figures: list[Figure] = []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            left = deadline - time.monotonic()
            most_s = left if rehearses else min(left, MOST_S[part])
            found, why = run_part(part, Path(folder), most_s, console, rehearses=rehearses)
            failed |= why is not None
            if rehearses:
                found = [Figure(part, each.measured, "not measured: a rehearsal", each.goal) for each in found]
            figures += found or [not_measured(part, why or "it found nothing")]
            if found and why:
                figures.append(Figure(part, f"what else {part} measures", f"not measured: {why}"))
    return figures, failed


if __name__ == "__main__":
    sys.exit(main())
