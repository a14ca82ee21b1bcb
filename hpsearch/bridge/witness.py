"""What the machine says about a process's memory, from outside of it. It never raises: silence is a fact, too."""

from __future__ import annotations

from typing import Any

import psutil

from hpsearch.bridge.cards import ask_each, open_nvml, parts_of


def host_bytes(pid: int) -> int:
    """Resident memory of a process and its children; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def device_bytes(pid: int) -> int | None:
    """GPU memory that a process holds, as the driver sees it: CUDA's context and managed memory included.

    None without an NVIDIA driver, where no card tells, or in a container that has process ids of its own.
    """
    found = [num_bytes for of_pid, num_bytes in _held()[0] if of_pid == pid]
    return sum(found) if found else None


def device_errors() -> list[str]:
    """What NVML refuses to tell now, a line for each card; empty on a machine without an NVIDIA driver."""
    return _held()[1]


def _held() -> tuple[list[tuple[int, int]], list[str]]:
    """The bytes that processes hold on all cards together, by process id, and the errors of cards that don't tell."""
    nvml, reason = open_nvml()
    if nvml is None:
        return [], [f"NVML: {reason}"] if reason else []
    try:
        answers, refused = ask_each(nvml, lambda _, handle: _held_on(nvml, handle))
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as error:
        return [], [f"NVML: {error}"]
    return [held for answer in answers for held in answer], [str(card) for card in refused]


def _held_on(nvml: Any, handle: Any) -> list[tuple[int, int]]:
    """A divided card tells of its instances together to administrators alone, so each instance is asked.

    https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html, nvmlDeviceGetComputeRunningProcesses
    """
    parts = parts_of(nvml, handle)
    return [
        (running.pid, running.usedGpuMemory)
        for part in ([handle] if parts is None else parts)
        for running in nvml.nvmlDeviceGetComputeRunningProcesses(part)
        if running.usedGpuMemory is not None
    ]
