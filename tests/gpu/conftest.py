"""Real trainers on CUDA. Without it every test of this folder skips itself and says so."""

from __future__ import annotations

import pytest

from hpsearch.bridge.witness import device_bytes
from hpsearch.trial import MIB
from tests.integration.conftest import Driver, image_rows, start_driver, text_rows

__all__ = ["image_rows", "start_driver", "text_rows"]


def pytest_runtest_setup() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")


def witnessed_mib(driver: Driver) -> float:
    """The trainer's device memory as NVML sees it from outside; skips where it doesn't tell."""
    seen = device_bytes(driver.process.pid)
    if seen is None:
        pytest.skip("NVML tells no process's device memory here (a container with process ids of its own?)")
    return seen / MIB
