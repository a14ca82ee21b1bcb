"""MiB that each further trial leaves behind: hpsearch's trainer against a hand-written loop in one process.

Both are watched from outside in the same way: resident host memory of the process, and with CUDA the device memory
that the driver counts for it. The first third of the trials, in which libraries fill their caches, is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.comparison import Comparison, Finding, NotMeasured, Say, Side
from bench.naive_loop import DONE
from bench.searches import RunningSearch, running_search
from bench.shapes import Shape, chosen
from hpsearch.bridge.witness import device_bytes, host_bytes
from hpsearch.trial import MIB

OURS, NAIVE = "hpsearch's trainer", "hand-written loop"


class NaiveLoop:
    """The other process: runs one trial each time it is asked."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def run_trial(self) -> None:
        """Raises RuntimeError when the process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("next\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.strip() == DONE:
                return
        last_words = "\n".join(self._log.read_text().splitlines()[-20:])
        raise RuntimeError(f"the hand-written loop ended with exit code {self._process.wait()}:\n{last_words}")


@contextmanager
def naive_loop(folder: Path, shape: Shape) -> Iterator[NaiveLoop]:
    folder.mkdir()
    shape.write_rows(folder / "rows.jsonl")
    log = folder / "log.txt"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.naive_loop", shape.base, str(shape.steps), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    try:
        yield NaiveLoop(process, log)
    finally:
        process.kill()
        process.wait()


def measure(say: Say) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = chosen(folder, say)
        with (
            running_search(folder / "hpsearch", shape, shape.growth_trials, None) as ours,
            naive_loop(folder / "naive", shape) as naive,
        ):
            seen = _take_turns({OURS: ours, NAIVE: naive}, shape.growth_trials, say)
            if len(ours.trainers) > 1:
                raise RuntimeError(f"the trainer was replaced {len(ours.trainers) - 1} times; there is no one slope")
    return _findings(shape, seen)


class Seen:
    """Of one process after each trial: host and device memory in MiB, and the seconds that the trial took."""

    def __init__(self) -> None:
        self.host: list[float] = []
        self.device: list[float] = []
        self.seconds: list[float] = []

    def note(self, pid: int, seconds: float) -> None:
        self.host.append(host_bytes(pid) / MIB)
        device = device_bytes(pid)
        if device is not None:
            self.device.append(device / MIB)
        self.seconds.append(seconds)


def _take_turns(sides: Mapping[str, RunningSearch | NaiveLoop], num_trials: int, say: Say) -> dict[str, Seen]:
    seen = {side: Seen() for side in sides}
    for number in range(1, num_trials + 1):
        for side, runner in sides.items():
            started = time.perf_counter()
            runner.run_trial()
            seen[side].note(runner.pid, time.perf_counter() - started)
        if number % 10 == 0:
            held = ", ".join(f"{side} {last.host[-1]:.0f} MiB" for side, last in seen.items())
            say(f"{number} trials: {held}")
    return seen


def _findings(shape: Shape, seen: dict[str, Seen]) -> list[Finding]:
    judged = shape.growth_trials - shape.growth_trials // 3
    trials = f"slope over the last {judged} of {shape.growth_trials} trials, {shape.steps} steps each, {shape.name}"
    host = {side: after_first_third(values.host) for side, values in seen.items()}
    device = {side: after_first_third(values.device) for side, values in seen.items() if values.device}
    own_s, naive_s = (Side(side, after_first_third(values.seconds)) for side, values in seen.items())
    of_device = f"device memory: {trials}"
    return [
        compare_growth(f"host memory: {trials}", host),
        compare_growth(of_device, device)
        if len(device) == 2
        else NotMeasured(of_device, "no CUDA, or a driver that tells no process's memory"),
        Comparison("seconds per trial, same trials", "s", own_s, naive_s),
    ]


def after_first_third(values: list[float]) -> list[float]:
    return values[len(values) // 3 :]


def compare_growth(measured: str, values: dict[str, list[float]]) -> Comparison:
    """Slopes with their standard errors; a ratio only where both sides grow by more than twice theirs."""
    fits = {side: slope(of_side) for side, of_side in values.items()}
    flat = [side for side, (growth, error) in fits.items() if growth <= 2 * error]
    own, other = (Side(f"{side} (± {error:.3f})", [growth]) for side, (growth, error) in fits.items())
    no_ratio = f"no growth beyond noise in {' and '.join(flat)}" if flat else None
    return Comparison(measured, "MiB per trial", own, other, no_ratio)


def slope(values: list[float]) -> tuple[float, float]:
    """(slope, its standard error) of a straight line through the values."""
    line, covariance = np.polyfit(range(len(values)), values, 1, cov=True)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))
