"""The benchmarks run: one of them for real, all of them by name."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY


def bench(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *names]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def test_the_quickest_one_prints_its_ratio() -> None:
    done = bench("cli_start")
    assert done.returncode == 0, done.stderr
    assert "import torch" in done.stdout


def test_an_unknown_one_is_told_with_those_that_there_are() -> None:
    done = bench("cli_strat")
    assert done.returncode != 0
    assert "cli_start" in done.stdout + done.stderr
