"""The benchmarks run: one of them for real, all of them by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import cli_start
from bench.__main__ import main
from tests.conftest import REPOSITORY


def bench(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *names]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def test_the_quickest_one_prints_its_ratio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli_start, "NUM_PAIRS", 1)
    monkeypatch.setattr(sys, "argv", ["bench", "cli_start"])
    assert main() == 0
    assert "import torch" in capsys.readouterr().out


def test_an_unknown_one_is_told_with_those_that_there_are() -> None:
    done = bench("cli_strat")
    assert done.returncode != 0
    assert "cli_start" in done.stdout + done.stderr
