"""The machine and the versions: without them a ratio can't be compared with another one."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import pynvml
from rich.console import Console

from hpsearch.trial import GIB

WIDTH_OF_A_FILE = 150

_LIBRARIES = (
    "hpsearch",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "trl",
    "accelerate",
    "optuna",
    "sqlalchemy",
    "ray",
)


def describe() -> list[str]:
    """Lines for a person."""
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return [
        f"machine: {_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"{psutil.virtual_memory().total / GIB:.0f} GiB of memory, {platform.platform()}",
        f"load before the first benchmark: {os.getloadavg()[0]:.1f}; OMP_NUM_THREADS: {threads}",
        f"GPU: {', '.join(_gpus()) or 'none'}",
        f"versions: Python {platform.python_version()}, "
        + ", ".join(f"{library} {_version(library)}" for library in _LIBRARIES),
    ]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")


def _gpus() -> list[str]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    driver = pynvml.nvmlSystemGetDriverVersion()
    return [
        f"{pynvml.nvmlDeviceGetName(handle)}, {pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB:.0f} GiB, "
        f"driver {driver}"
        for handle in handles
    ]


def offline_console() -> Console:
    """The terminal's, or for a file one as wide as the tables; libraries are set to use no network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_A_FILE)
