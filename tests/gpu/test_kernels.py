"""Kernels that are compiled on this machine: trl's fused head as the doctor tries it, and without a C compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.jobs import Check

pytestmark = pytest.mark.needs_gpu

TRIES = "from hpsearch.train.diagnosis import _kernels; print(_kernels().model_dump_json())"


def tried(**environment: str) -> Check:
    """In a process of its own: Triton compiles once in each."""
    ended = subprocess.run(
        [sys.executable, "-c", TRIES], env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return Check.model_validate_json(ended.stdout.splitlines()[-1])


def test_the_doctor_compiles_and_runs_a_kernel() -> None:
    check = tried()
    assert check.verdict == "works", check


def test_a_missing_compiler_is_found_whatever_is_in_triton_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    check = tried(PATH=str(tmp_path))
    assert check.verdict == "fails", check
    assert check.fix is not None
    assert "apt-get install gcc" in check.fix
