"""RESULTS.md: one row for each storm and store. A storm that is run again replaces its row and no other."""

from __future__ import annotations

import fcntl
from pathlib import Path

from bench.faults.tally import ZEROS, Tally

HEAD = """\
# All faults

Each row was written by the command in it. `times` is how often the fault was provoked, `whole` counts the trials that
ended with each report stored once, with the right value. The columns after it must be 0: trials `lost`; trials that
`failed`; trials or attempts that ran `twice`; trials with `wrong` reports; files that a `foreign` attempt changed;
`mistakes` of workers (tracebacks); workers found `dead` that the test did not kill; trainers `left` running; and what
only this fault could break. Trainers are stand-ins, real processes without torch (`standin.py`).

"""
_COLUMNS = ("storm", "store", "fault", "times", "wanted", "whole", *ZEROS, "of this fault", "notes", "command")


def write_row(file: Path, name: str, count: int, tally: Tally) -> None:
    """Other storms may be writing, too."""
    command = f"`python -m bench.faults {name} --store {tally.store} --count {count} --seed {tally.seed}`"
    own = ", ".join(f"{what} {number}" for what, number in tally.other.items()) or "–"
    notes = "; ".join(dict.fromkeys(note.replace("|", "/") for note in tally.notes)) or "–"
    zeros = [getattr(tally, zero) for zero in ZEROS]
    cells = (name, tally.store, tally.fault, tally.times, tally.trials, tally.whole, *zeros, own, notes, command)
    with file.open("a+") as table:
        fcntl.flock(table, fcntl.LOCK_EX)
        table.seek(0)
        rows = {_key(line): line for line in table.read().splitlines() if line.startswith("| ")}
        row = _line(*cells)
        rows.pop(_key(_line(*_COLUMNS)), None)
        rows[_key(row)] = row
        table.truncate(0)
        table.write(HEAD + "\n".join([_line(*_COLUMNS), "|---" * len(_COLUMNS) + "|", *sorted(rows.values())]) + "\n")


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _key(line: str) -> str:
    return " ".join(line.split("|")[1:3])
