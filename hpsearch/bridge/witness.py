"""What the machine says about a process's memory, from outside of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import psutil


def host_bytes(pid: int) -> int:
    """Resident memory of a process and its children; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def device_bytes(pid: int) -> int | None:
    """GPU memory that a process holds, as the driver sees it: CUDA's context and managed memory included.

    None without an NVIDIA driver, or in a container whose driver doesn't tell.
    """
    nvml = _nvml()
    if nvml is None:
        return None
    found = [
        running.usedGpuMemory
        for index in range(nvml.nvmlDeviceGetCount())
        for running in nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
        if running.pid == pid and running.usedGpuMemory is not None
    ]
    return sum(found) if found else None


def num_gpus() -> int:
    nvml = _nvml()
    return int(nvml.nvmlDeviceGetCount()) if nvml else 0


@cache
def _nvml() -> Any | None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
