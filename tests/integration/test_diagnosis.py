"""What `hpsearch doctor` says of kernels: without CUDA nothing is tried, with it a missing compiler has a fix."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from triton.runtime import build

from hpsearch.train import diagnosis
from hpsearch.train.diagnosis import _devices, _fused_head, _kernels
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.failures import is_machines

DOCKERFILE = Path(__file__).parents[2] / "docker" / "Dockerfile"


def compiles(device: str) -> float:
    """Triton's own way to its stub; without a driver that is as far as it comes."""
    del device
    build._find_compiler.cache_clear()
    try:
        build._build("stub", "stub.c", "/nonexistent", [], [], [], [])
    finally:
        build._find_compiler.cache_clear()
    return 0.0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(diagnosis, "_fused_head", compiles)
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.delenv("CC", raising=False)


def test_without_cuda_it_says_that_nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _kernels().found == "not tried: without CUDA nothing is compiled"


@pytest.mark.parametrize(("num", "told"), [(1, "1 thread of"), (8, "8 threads of")])
def test_threads_are_counted_in_words(monkeypatch: pytest.MonkeyPatch, num: int, told: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num)
    assert told in _devices()[0].found


def test_the_head_that_is_tried_is_right_where_torch_computes_it() -> None:
    assert _fused_head("cpu") < 1e-4


@pytest.mark.usefixtures("cuda")
def test_a_missing_compiler_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = _kernels()
    assert (check.verdict, check.fix) == ("fails", "on Debian and Ubuntu: apt-get install gcc libc6-dev")
    assert "Failed to find C compiler" in check.found
    assert is_machines(TrialResult(outcome=Outcome.FAILED, reason=check.found))


@pytest.mark.usefixtures("cuda")
def test_missing_headers_are_reported_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(diagnosis.sysconfig, "get_paths", lambda **_: {"include": str(tmp_path)})
    monkeypatch.setenv("CC", "false")
    check = _kernels()
    assert (check.verdict, check.fix) == (
        "fails",
        "Python's headers are missing; on Debian and Ubuntu: apt-get install python3-dev",
    )
    with pytest.raises(subprocess.CalledProcessError) as raised:
        compiles("cuda")
    assert str(raised.value) in check.found
    assert is_machines(TrialResult(outcome=Outcome.FAILED, reason=check.found))


@pytest.mark.usefixtures("cuda")
def test_a_kernel_that_computes_nonsense_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_fused_head", lambda _: 3.0)
    assert _kernels().verdict == "fails"
    monkeypatch.setattr(diagnosis, "_fused_head", lambda _: 1e-3)
    assert _kernels().verdict == "works"


def test_the_image_has_what_triton_compiles_with() -> None:
    text = DOCKERFILE.read_text()
    assert "gcc libc6-dev" in text
    assert "Python.h" in text
