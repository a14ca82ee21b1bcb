"""Workers on this machine: one per free device, or one on the CPU.

Which device is a worker's isn't said here: each takes the next free one by itself, as a worker started by hand does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.errors import HpsearchError
from hpsearch.worker.devices import find_devices
from hpsearch.worker.take_device import free_devices, held_devices

PARENT_VARIABLE = "HPSEARCH_STARTED_BY_RUN"
"""Set for workers that `hpsearch run` starts: they stop when it is gone."""


@dataclass(frozen=True)
class WorkerProcess:
    """A started worker: its process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    @property
    def has_failed(self) -> bool:
        return self.exit_code not in (None, 0)

    @property
    def was_killed(self) -> bool:
        """By a signal: a scheduler's, the kernel's, a person's."""
        return self.exit_code is not None and self.exit_code < 0

    def stop(self) -> None:
        """Asks it to save a checkpoint and leave."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it wrote nothing"


def default_num_workers(tell: Callable[[str], None] = lambda _: None, per_device: int = 1) -> int:
    """As many as devices, or parts of them, are free; where none is, one, which waits for the first. Says what is
    taken and left out."""
    devices = find_devices().in_parts(per_device)
    for line in (*devices.notes, *(f"left out: {each}" for each in devices.refused), *held_devices(devices)):
        tell(line)
    return max(1, len(free_devices(devices)))


def start_worker(index: int, num_workers: int, arguments: list[str], store: URL, storage: Path) -> WorkerProcess:
    """Starts `hpsearch worker` with `arguments`; the store's URL travels in the environment, not in argv."""
    log = storage / "logs" / f"worker-{index}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "HPSEARCH_STORE": store.render_as_string(hide_password=False),
        "HPSEARCH_STORAGE": str(storage),
        PARENT_VARIABLE: "1",
    }
    if _works_on_cpu():
        # Two torch processes that each use all cores slow each other down many times over.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_workers)))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hpsearch", "worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches `hpsearch run` alone, which then asks its workers to stop
        )
    return WorkerProcess(process, log)


def _works_on_cpu() -> bool:
    """A driver that doesn't answer is the worker's to tell; the others go on."""
    try:
        return any(device.is_cpu for device in find_devices().allowed)
    except HpsearchError:
        return False
