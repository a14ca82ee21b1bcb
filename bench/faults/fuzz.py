"""Broken input: whatever is in a file, the user gets a message, in time, and without secrets.

    python -m bench.faults.fuzz --cases 10000 --seed 0

Real files are broken by `mutations` and read by the code that reads a user's files. A case is *refused* when an
HpsearchError comes out, and *accepted* when nothing does. Anything else is a traceback; a case that takes longer than
its deadline hangs; a message that holds a planted secret leaks. The same seed breaks the same files the same way.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from hpsearch.errors import HpsearchError

DEADLINE_S = 10.0
SECRETS = {
    "HPSEARCH_STORE": "postgresql+psycopg://me:hunter2-store@db.lab/hpsearch",
    "PGPASSWORD": "hunter2-pg",
    "HF_TOKEN": "hf_hunter2token",
}
Case = Callable[[Random], None]
"""Breaks one input and has it read."""


class Hung(BaseException):
    """Not an Exception: no `except Exception` may swallow it."""


@dataclass
class Tally:
    """The results of the cases of one kind. `found`: the first case of each forbidden result, with its message."""

    kind: str
    cases: int = 0
    refused: int = 0
    accepted: int = 0
    tracebacks: int = 0
    hangs: int = 0
    secrets: int = 0
    slowest_s: float = 0.0
    found: dict[str, str] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not (self.tracebacks or self.hangs or self.secrets)

    def __str__(self) -> str:
        return (
            f"{self.kind:<14}{self.cases:>7,} cases {self.refused:>7,} refused in words {self.accepted:>7,} accepted "
            f"{self.tracebacks:>4} tracebacks {self.hangs:>3} hangs {self.secrets:>3} secrets   "
            f"slowest {self.slowest_s:.2f} s"
        )


def run_case(tally: Tally, number: int, case: Case, random: Random) -> None:
    tally.cases += 1
    started = time.perf_counter()
    message = ""
    try:
        with _deadline(DEADLINE_S):
            case(random)
        tally.accepted += 1
    except HpsearchError as error:
        tally.refused += 1
        message = str(error)
    except Hung:
        tally.hangs += 1
        tally.found.setdefault("hang", f"case {number}: {traceback.format_exc()}")
    except Exception as error:
        tally.tracebacks += 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        tally.found.setdefault(f"{type(error).__name__} at {place.name}", f"case {number}: {traceback.format_exc()}")
    if any(secret in message for secret in SECRETS.values()) or "hunter2" in message:
        tally.secrets += 1
        tally.found.setdefault("secret", f"case {number}: {message}")
    tally.slowest_s = max(tally.slowest_s, time.perf_counter() - started)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises Hung when the time is over; a timer that was set before continues afterwards."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    num_cases: int,
    seed: int,
    folder: Path,
    kinds: list[str] | None = None,
    each: Callable[[Tally], None] = lambda _: None,
) -> list[Tally]:
    """So many cases over all kinds, in their shares; `folder` is written into. `each` hears of every case."""
    from bench.faults.inputs import KINDS

    chosen = {name: kind for name, kind in KINDS.items() if kinds is None or name in kinds}
    total = sum(share for share, _ in chosen.values())
    tallies = []
    for name, (share, make) in chosen.items():
        place = folder / name
        place.mkdir(parents=True)
        case, tally = make(place), Tally(name)
        for number in range(max(1, round(num_cases * share / total))):
            run_case(tally, number, case, Random(zlib.crc32(f"{seed} {name} {number}".encode())))
            each(tally)
        tallies.append(tally)
    return tallies


def _watch(_: Tally) -> None:
    """A case in which no signal gets through, deep in a library's C code, ends the process with a traceback."""
    faulthandler.dump_traceback_later(6 * DEADLINE_S, exit=True)


def main() -> int:
    """The exit code: 1 if any case ended with anything but a message."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults.fuzz", description="Input that is no input.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only this kind of input; default: all")
    arguments = parser.parse_args()
    os.environ.update(SECRETS)
    faulthandler.enable()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tallies = fuzz(arguments.cases, arguments.seed, Path(folder), arguments.kind, _watch)
    faulthandler.cancel_dump_traceback_later()
    for tally in tallies:
        print(tally)
        for what, words in tally.found.items():
            print(f"  {what}\n    " + words.strip().replace("\n", "\n    "))
    print(f"{sum(tally.cases for tally in tallies):,} cases in {time.perf_counter() - started:.0f} s")
    return 0 if all(tally.is_clean for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
