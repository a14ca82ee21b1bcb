"""`python -m bench.gpu.part PART FOLDER SECONDS [--rehearse]`: one part, its figures as lines on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from bench.gpu.place import Place

MODULES = {"tests": "suite"}
"""Where a part's file has another name."""


def measure_of(part: str) -> Callable[[Place], None]:
    measure: Callable[[Place], None] = import_module(f"bench.gpu.{MODULES.get(part, part)}").measure
    return measure


def main() -> None:
    part, folder, seconds = sys.argv[1:4]
    place = Place(
        Path(folder),
        time.monotonic() + float(seconds),
        rehearses="--rehearse" in sys.argv,
        say=lambda line: print(line, flush=True),
        show=lambda figure: print(f"\n{figure.told()}", flush=True),  # a library may have left half a line
    )
    measure_of(part)(place)


if __name__ == "__main__":
    main()
