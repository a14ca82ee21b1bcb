"""Fifty trials in one process: does what NVML sees of it grow?"""

from __future__ import annotations

from bench.gpu.figures import Figure
from bench.gpu.place import Place
from bench.gpu.shapes import QWEN_2_5_HALF_B
from bench.gpu.trials import changed, config_of, trials
from bench.memory_growth import after_first_third, slope
from hpsearch.trial import MIB

NUM_TRIALS, AT_REHEARSAL = 50, 6


def measure(place: Place) -> None:
    config = config_of(QWEN_2_5_HALF_B, place)
    seen: list[float] = []
    closed = 0
    number = 0
    with trials(place.fresh("ledger")) as running:
        for number in range(1, (AT_REHEARSAL if place.rehearses else NUM_TRIALS) + 1):
            result = running.run(changed(config, lora__r=(4, 8, 16, 32)[number % 4], training__batch_size=4))
            if result.fit is not None:
                config = config.model_copy(update={"fits": [*config.fits, result.fit]})
            closed += result.ledger is not None and result.ledger.closes
            seen.append((running.device_bytes() or 0) / MIB)
            if place.seconds_left() < 5:
                break
    what = f"{QWEN_2_5_HALF_B.name}: {number} trials of four ranks in one process"
    place.show(Figure("ledger", what, f"{closed} of {number} ledgers close", "all"))
    place.show(Figure("ledger", f"{what}: device memory by NVML", growth(seen), "no growth"))


def growth(seen: list[float]) -> str:
    if not any(seen):
        return "not measured: NVML tells no process's memory here"
    judged = after_first_third(seen)
    per_trial, error = slope(judged)
    return f"{per_trial:+.3f} ± {error:.3f} MiB per trial over the last {len(judged)}; {judged[-1]:,.0f} MiB held"
