"""A paged optimizer: managed memory that torch does not count, and that goes with the process."""

from __future__ import annotations

from bench.gpu.figures import Figure
from bench.gpu.place import Place
from bench.gpu.shapes import QWEN_2_5_HALF_B
from bench.gpu.trials import changed, config_of, trials
from hpsearch.bridge.witness import device_bytes
from hpsearch.trial import MIB


def measure(place: Place) -> None:
    config = changed(config_of(QWEN_2_5_HALF_B, place), lora__r=64)
    optimizer = "adamw_torch" if place.rehearses else "paged_adamw_8bit"
    with trials(place.fresh("paged")) as running:
        running.run(config)
        before = running.device_bytes()
        running.run(changed(config, training__optimizer=optimizer))
        behind = running.device_bytes()
        running.run(changed(config, training__optimizer=optimizer))
        again = running.device_bytes()
        pid = running.pid
    after_end = device_bytes(pid)
    held = ", ".join(_mib(seen) for seen in (before, behind, again))
    what = f"{QWEN_2_5_HALF_B.name}, {optimizer}: device memory by NVML before, behind one, and behind two trials"
    place.show(Figure("paged", what, f"{held}; {_mib(after_end)} when the process has ended"))


def _mib(seen: int | None) -> str:
    return "nothing seen" if seen is None else f"{seen / MIB:,.0f} MiB"
