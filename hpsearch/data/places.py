"""Where rows stand in the person's file, for messages about those that are left out: lines of JSONL and CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAMED = 5
"""Number of left-out rows that are named for each reason."""
Spot = tuple[int, str]
"""A row's position, from 0, and its id."""


@dataclass(frozen=True)
class Places:
    """The positions of a source's rows."""

    file: Path | None
    """None: the rows are in no single file."""
    num_rows: int
    has_ids: bool
    """Whether a column has the rows' ids; without it they are the positions."""
    used: Mapping[str, int]
    """Id → position of the usable rows."""
    left_out: Mapping[str, Sequence[Spot]]
    """Reason → the rows that were left out while reading."""
    kept: Mapping[int, Spot]
    """Position of a duplicate → the row whose content it has."""

    def describe(self, left_out: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Reason → where the first rows stand that are left out for it. `left_out`: reason → ids."""
        spots = {reason: self._first(reason, ids) for reason, ids in left_out.items()}
        lines = _lines(self.file, self.num_rows) if self.file and spots else None
        return {reason: self._described(found, len(left_out[reason]), lines) for reason, found in spots.items()}

    def lines_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Id → line of these usable rows; empty where the file has no lines."""
        lines = _lines(self.file, self.num_rows) if self.file else None
        return {row_id: lines[self.used[row_id]] for row_id in ids if row_id in self.used} if lines else {}

    def _first(self, reason: str, ids: Sequence[str]) -> Sequence[Spot]:
        return self.left_out.get(reason) or [(self.used[row_id], row_id) for row_id in ids[:NAMED]]

    def _described(self, spots: Sequence[Spot], count: int, lines: Sequence[int] | None) -> str:
        noun = "row" if lines is None else "line"

        def name(spot: Spot) -> str:
            return spot[1] if lines is None else str(lines[spot[0]])

        repeats = [
            f"{noun} {name(spot)} repeats {noun} {name(self.kept[spot[0]])}" for spot in spots if spot[0] in self.kept
        ]
        listed = ", ".join(repeats or map(name, spots))
        more = " …" if count > len(spots) else ""
        which = f"{listed}{more}" if repeats else f"{noun}{'s' if count > 1 else ''} {listed}{more}"
        counted = ", counted from 0" if lines is None and not self.has_ids else ""
        return f"{f'{self.file.name}: ' if self.file else ''}{which}{counted}"


def _lines(file: Path, num_rows: int) -> Sequence[int] | None:
    """The line of each row, from 1; None where the file has no lines, or others than were read."""
    read = {".jsonl": _of_jsonl, ".csv": _of_csv}.get(file.suffix)
    try:
        lines = list(read(file)) if read else []
    except (OSError, ValueError, csv.Error):
        return None
    return lines if read and len(lines) == num_rows else None


def _of_jsonl(file: Path) -> Iterator[int]:
    with file.open("rb") as content:
        yield from (number for number, line in enumerate(content, 1) if line.strip())


def _of_csv(file: Path) -> Iterator[int]:
    """The first line of each row: a value in quotes may go over several."""
    with file.open(encoding="utf-8-sig", newline="") as content:
        rows = csv.reader(content)
        is_header, before = True, 0
        for row in rows:
            if row and not is_header:
                yield before + 1
            is_header &= not row
            before = rows.line_num
