"""Real trainers on CUDA. Without it every test of this folder skips itself and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpsearch.bridge.witness import device_bytes
from hpsearch.trial import MIB
from tests.integration.conftest import Driver, drivers, write_image_rows, write_text_rows


def pytest_runtest_setup() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")


def witnessed_mib(driver: Driver) -> float:
    """The trainer's device memory as NVML sees it from outside; skips where NVML doesn't say."""
    seen = device_bytes(driver.process.pid)
    if seen is None:
        pytest.skip("NVML tells no process's device memory here (a container with process ids of its own?)")
    return seen / MIB


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    with drivers(tmp_path / "trainer.txt") as start:
        yield start


@pytest.fixture(scope="session")
def text_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_text_rows(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def image_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_image_rows(tmp_path_factory.mktemp("images"))
