"""A part as a process: started, its output read, and ended with everything that it started when its time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from rich.console import Console

from bench.gpu.figures import Figure, from_line

_REPOSITORY = Path(__file__).parents[2]
LEAST_S = 10.0
"""Less than this is not worth starting for."""
LATE_S = 10.0
"""What a part gets to end by itself."""
OUT_OF_TIME = "out of time"


def has_card() -> bool:
    """Asked in a process of its own: one that has looked holds a CUDA context."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0


def run_part(
    part: str, folder: Path, most_s: float, console: Console, *, rehearses: bool
) -> tuple[list[Figure], str | None]:
    """(what it found, why it found no more)"""
    if most_s < LEAST_S:
        return [], OUT_OF_TIME
    console.print(f"[bold]{part}[/bold]")
    started = time.monotonic()
    process = subprocess.Popen(
        command(part, folder, most_s, rehearses=rehearses),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=_REPOSITORY,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    late = threading.Event()
    watch = threading.Timer(most_s, lambda: (late.set(), end_all(process.pid)))
    watch.start()
    figures, words = [], []
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            told = line.rstrip()
            if (figure := from_line(line)) is not None:
                figures.append(figure)
                told = f"{figure.measured}: {figure.found}"
            if told:
                words.append(told)
                console.print(f"  {told}", markup=False, highlight=False)
    code = process.wait()
    watch.cancel()
    console.print(f"  {time.monotonic() - started:.0f} s in all", highlight=False)
    if late.is_set():
        return figures, OUT_OF_TIME
    if code:
        return figures, f"exit code {code}: {words[-1] if words else 'without a word'}"
    return figures, None


def command(part: str, folder: Path, most_s: float, *, rehearses: bool) -> list[str]:
    seconds = max(1.0, most_s - LATE_S)
    given = ["--rehearse"] if rehearses else []
    return [sys.executable, "-m", "bench.gpu.part", part, str(folder), str(seconds), *given]


def end_all(pid: int) -> None:
    """The process and its descendants, in whatever session."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
