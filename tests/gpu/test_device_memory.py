"""Device memory over many trials: flat to torch, and flat to NVML, which looks at the process from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpsearch.bridge.protocol import Event, Progress
from hpsearch.bridge.witness import device_bytes
from hpsearch.spec.training import BudgetSpec
from hpsearch.trial import MIB, MemoryLedger, Outcome
from tests.gpu.conftest import witnessed_mib
from tests.integration.conftest import Driver, changed, text_config

pytestmark = pytest.mark.needs_gpu

NUM_TRIALS = 60
NUM_JUDGED = 40
MOST_MIB_PER_TRIAL = 0.1
SLACK_MIB = 64
"""Between the driver's pages of 2 MiB, kernels that are loaded meanwhile, and the moments of looking."""

Rows = tuple[Path, Path]
StartDriver = Callable[[], Driver]


def slope_per_trial(values: list[float]) -> float:
    judged = values[-NUM_JUDGED:]
    return float(np.polyfit(range(len(judged)), judged, 1)[0])


def sixty_trials(driver: Driver, rows: Rows, folder: Path, after_each: Callable[[], None]) -> list[MemoryLedger]:
    """Trials of different sizes, every fifth pruned, in one process."""
    ledgers = []
    for number in range(NUM_TRIALS):
        config = text_config(
            rows,
            lora__r=(4, 8, 16)[number % 3],
            lora__dropout=(0.0, 0.1)[number % 2],
            training__batch_size=(2, 4)[number % 2],
            budget=BudgetSpec(max_steps=2, reports=2),
        )
        is_pruned = number % 5 == 3
        result = driver.run(folder / str(number), config, goes_on=lambda _, is_pruned=is_pruned: not is_pruned)
        assert result.outcome is (Outcome.PRUNED if is_pruned else Outcome.COMPLETE), result.reason
        assert driver.was_clean, result.ledger
        assert result.ledger is not None
        ledgers.append(result.ledger)
        after_each()
    return ledgers


@pytest.mark.slow
def test_sixty_trials_are_flat_to_torch(start_driver: StartDriver, text_rows: Rows, tmp_path: Path) -> None:
    ledgers = sixty_trials(start_driver(), text_rows, tmp_path, lambda: None)
    assert min(ledger.peak_device_bytes for ledger in ledgers) > 0
    assert slope_per_trial([ledger.after.device_allocated_bytes / MIB for ledger in ledgers]) <= MOST_MIB_PER_TRIAL
    assert abs(slope_per_trial([ledger.after.live_tensors for ledger in ledgers])) < 1e-6
    assert len({ledger.after.base_fingerprint for ledger in ledgers}) == 1


@pytest.mark.slow
def test_sixty_trials_are_flat_from_outside(start_driver: StartDriver, text_rows: Rows, tmp_path: Path) -> None:
    driver = start_driver()
    seen: list[float] = []
    sixty_trials(driver, text_rows, tmp_path, lambda: seen.append(witnessed_mib(driver)))
    assert min(seen) > 0
    assert slope_per_trial(seen) <= MOST_MIB_PER_TRIAL


def test_the_witness_sees_the_trainer_from_outside(start_driver: StartDriver, text_rows: Rows, tmp_path: Path) -> None:
    driver = start_driver()
    seen: list[float] = []

    def look(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append(witnessed_mib(driver))

    result = driver.run(tmp_path / "trial", text_config(text_rows), each=look)
    assert result.outcome is Outcome.COMPLETE, result.reason
    assert result.ledger is not None
    # CUDA's own context is in the one number and not in the other.
    assert witnessed_mib(driver) > result.ledger.after.device_allocated_bytes / MIB > 0
    assert min(seen) > 0
    # The pool keeps what it took until the trial ends, so looks from outside come near the peak, not above it.
    peak = result.ledger.peak_device_bytes / MIB
    assert max(seen) - SLACK_MIB <= peak <= max(seen) + SLACK_MIB
    assert result.ledger.peak_allocated_bytes < result.ledger.peak_device_bytes
    driver.process.end()
    assert device_bytes(driver.process.pid) is None, "a process that has ended holds device memory"


def test_the_first_ledger_of_a_process_closes_on_this_host(
    start_driver: StartDriver, image_rows: Rows, tmp_path: Path
) -> None:
    """With images, whose processing starts a thread for each core, and autograd's threads for the device."""
    config = changed(text_config(image_rows), task="vlm-sft", model__base="tiny:gemma3")
    driver = start_driver()
    ledgers = [driver.run(tmp_path / str(number), config).ledger for number in range(2)]
    for ledger in ledgers:
        assert ledger is not None
        assert ledger.not_given_back == []
        assert ledger.after.threads - ledger.before.threads <= 1, "pools.py misses a pool"
    assert driver.was_clean
