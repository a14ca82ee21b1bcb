"""`python -m bench [NAME…]`: runs the benchmarks one after the other and shows one table."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import (
    cli_start,
    estimate,
    large_data,
    memory_growth,
    quantized_base,
    store_load,
    store_size,
    store_throughput,
    warm_base,
)
from bench.comparison import HEADINGS, Finding, NotMeasured, Say, as_table
from bench.machine import describe, offline_console
from bench.race import race
from bench.results import write_section

BENCHMARKS: dict[str, Callable[[Say], list[Finding]]] = {
    "warm_base": warm_base.measure,
    "quantized_base": quantized_base.measure,
    "memory_growth": memory_growth.measure,
    "store_throughput": store_throughput.measure,
    "store_size": store_size.measure,
    "store_load": store_load.measure,
    "cli_start": cli_start.measure,
    "estimate": estimate.measure,
    "race": race.measure,
    "large_data": large_data.measure,
}
BY_HAND = ("large_data",)
"""Measured only when they are named."""


def main() -> int:
    """The exit code: 1 when a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side benchmarks that print ratios.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all but {BY_HAND[0]} of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="write each one's table into this file")
    given = parser.parse_args()
    names = given.names or [name for name in BENCHMARKS if name not in BY_HAND]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    console = offline_console()
    machine = describe()
    for line in machine:
        console.print(line, highlight=False)
    findings: list[tuple[str, Finding]] = []
    failed = False
    for name in names:
        found, notes, broke = _run(name, console)
        failed |= broke
        findings += [(name, finding) for finding in found]
        if given.results:
            _keep(given.results, name, machine, found, notes)
    console.print(as_table(findings))
    return 1 if failed else 0


def _keep(file: Path, name: str, machine: list[str], found: list[Finding], notes: list[str]) -> None:
    """Measurements on a GPU are kept beside those on a CPU."""
    title = f"{name}, on a {'CPU' if 'GPU: none' in machine else 'GPU'}"
    rows = [(*finding.cells(), f"`python -m bench {name}`") for finding in found]
    write_section(file, title, machine, HEADINGS, rows, notes)


def _run(name: str, console: Console) -> tuple[list[Finding], list[str], bool]:
    """(its findings, what it said, whether it failed)"""
    notes: list[str] = []

    def say(line: str) -> None:
        console.print(f"  {line}", markup=False, highlight=False)
        notes.append(line)

    started = time.perf_counter()
    console.print(f"[bold]{name}[/bold]")
    failed = False
    try:
        found = BENCHMARKS[name](say)
    except Exception as error:
        console.print(traceback.format_exc(), markup=False, highlight=False)
        found = [NotMeasured(name, f"failed: {type(error).__name__}: {error}")]
        failed = True
    console.print(f"  {time.perf_counter() - started:.0f} s in all", highlight=False)
    return found, notes, failed


if __name__ == "__main__":
    sys.exit(main())
