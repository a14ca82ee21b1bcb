"""RESULTS.md: a section for each kind of machine; what is measured again replaces its section and no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEAD = """\
# All measurements

Each section was written by the commands in its table, on the machine above it. A ratio is the other way's number
divided by hpsearch's: above 1, hpsearch needs less. What was not measured says so.
"""
_MARK = "\n## "


def write_section(
    file: Path,
    title: str,
    machine: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
) -> None:
    """`notes` stand below the table as they are."""
    text = file.read_text() if file.exists() else HEAD
    head, *sections = text.split(_MARK)
    kept = {section.splitlines()[0]: section.rstrip() for section in sections}
    table = [_line(headings), "|---" * len(headings) + "|", *map(_line, rows)]
    told = ["", *(f"    {note}" for note in notes)] if notes else []
    kept[title] = "\n".join([title, "", *(f"{line}  " for line in machine), "", *table, *told])
    file.write_text(head.rstrip() + "\n" + "".join(f"{_MARK}{kept[name]}\n" for name in kept))


def has_section(file: Path, title: str) -> bool:
    return file.exists() and f"{_MARK}{title}\n" in file.read_text()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |"
