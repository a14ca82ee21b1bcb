"""A process's memory as the machine sees it, measured from outside the process. It never raises: no answer is None."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from hpsearch.bridge.cards import ask_each, open_nvml, parts_of

_LOOKS_EVERY_S = 0.2


def host_bytes(pid: int) -> int:
    """Resident memory of a process and its children; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def device_bytes(pid: int) -> int | None:
    """GPU memory that a process holds, as the driver sees it: including CUDA's context and managed memory.

    None without an NVIDIA driver, where no card can be read, or in a container with its own process ids.
    """
    found = [num_bytes for of_pid, num_bytes in _held()[0] if of_pid == pid]
    return sum(found) if found else None


class DevicePeak:
    """The most GPU memory that NVML showed for a process, over all samples."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid = pid
        self._clock = clock
        self._looked_at = float("-inf")
        self.num_bytes: int | None = None
        """None until NVML has given a value."""

    def look(self) -> None:
        """Samples a few times a second at most, however often it is called: on some cards NVML takes a millisecond."""
        if self._clock() - self._looked_at < _LOOKS_EVERY_S:
            return
        self._looked_at = self._clock()
        if (seen := device_bytes(self._pid)) is not None:
            self.num_bytes = max(seen, self.num_bytes or 0)


def device_errors() -> list[str]:
    """NVML's current errors, one line per card; empty on a machine without an NVIDIA driver."""
    return _held()[1]


def _held() -> tuple[list[tuple[int, int]], list[str]]:
    """The bytes that processes hold on all cards together, by process id, and the errors of cards that can't be
    read.
    """
    nvml, reason = open_nvml()
    if nvml is None:
        return [], [f"NVML: {reason}"] if reason else []
    try:
        answers, refused = ask_each(nvml, lambda _, handle: _held_on(nvml, handle))
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as error:
        return [], [f"NVML: {error}"]
    return [held for answer in answers for held in answer], [str(card) for card in refused]


def _held_on(nvml: Any, handle: Any) -> list[tuple[int, int]]:
    """Only administrators may read a divided card's instances together, so each instance is read by itself.

    https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetComputeRunningProcesses
    """
    parts = parts_of(nvml, handle)
    return [
        (running.pid, running.usedGpuMemory)
        for part in ([handle] if parts is None else parts)
        for running in nvml.nvmlDeviceGetComputeRunningProcesses(part)
        if running.usedGpuMemory is not None
    ]
