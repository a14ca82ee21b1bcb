"""The project's own tests on a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.gpu.figures import Figure
from bench.gpu.place import Place

_REPOSITORY = Path(__file__).parents[2]


def measure(place: Place) -> None:
    """Each test's name is printed as it ends: if time runs out, these are the results."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-v", "-p", "no:cacheprovider"]
    if place.rehearses:
        command += ["--collect-only", "-q"]
    lines = []
    with subprocess.Popen(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            place.say(line.rstrip())
            lines += [line.strip().strip("= ")] if line.strip() else []
    if place.rehearses and tests.returncode not in (0, 5):
        raise RuntimeError("the tests can't be collected")
    place.show(Figure("tests", "tests/gpu", lines[-1] if lines else "nothing was printed", "all pass"))
