"""The installed `hpsearch` command as a user starts it: a process group of its own, its two outputs apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
"""Where `hpsearch` and `optuna` are installed."""
TIMEOUT_S = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote to stdout and stderr."""

    code: int
    said: str
    complained: str


Command = subprocess.Popen[str]
Start = Callable[..., Command]
"""Takes the command's arguments, `folder` (where it runs) and environment variables by name."""


@contextmanager
def commands() -> Iterator[Start]:
    """Starts commands; what still runs of them at the end is killed."""
    started: list[Command] = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HPSEARCH_STOR", "PGPASS"))}

    def start(*arguments: str, folder: Path, **environment: str) -> Command:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=inherited | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            with suppress(ProcessLookupError):  # none is left of its group
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def ended(process: Command) -> Ended:
    """Waits for the command's end."""
    said, complained = process.communicate(timeout=TIMEOUT_S)
    return Ended(process.returncode, said, complained)
