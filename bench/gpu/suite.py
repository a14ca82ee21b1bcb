"""The project's own tests on a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.gpu.figures import Figure
from bench.gpu.place import Place

_REPOSITORY = Path(__file__).parents[2]


def measure(place: Place) -> None:
    """A test that does not end in time is killed with this process; those before it stand in the log."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-x", "-p", "no:cacheprovider"]
    if place.rehearses:
        command += ["--collect-only"]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    place.say(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1].strip("= ") if lines else "nothing was printed"
    if place.rehearses and done.returncode not in (0, 5):
        raise RuntimeError(done.stdout + done.stderr)
    place.show(Figure("tests", "tests/gpu", last, "all pass"))
