"""A worker's process on this machine, and how many of them the machine has devices for.

No device is assigned here: each worker takes the next free one by itself, as a worker started by hand does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.bridge.stopping import AT_ONCE
from hpsearch.errors import HpsearchError, InputError, cut
from hpsearch.mirror.address import is_url
from hpsearch.store.workers import seconds_alive
from hpsearch.worker.devices import find_devices
from hpsearch.worker.endings import NO_MORE_TRIALS
from hpsearch.worker.take_device import free_devices, held_devices

PARENT_VARIABLE = "HPSEARCH_STARTED_BY_RUN"
"""Set for workers of a crew to the process id of their keeper: they stop when it is gone."""
_END_BYTES = 2**16
_LONGEST_LINE = 1000


@dataclass(frozen=True)
class WorkerProcess:
    """A started worker. `log`: its output file; None: it writes where its starter writes."""

    process: subprocess.Popen[bytes]
    log: Path | None = None

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
    def is_final(self) -> bool:
        """Whether a replacement would end the same way: the study is paused, a device is set aside, or the study file
        has mistakes.
        """
        return self.exit_code in (NO_MORE_TRIALS, InputError.exit_code)

    @property
    def was_killed(self) -> bool:
        """By a signal from a scheduler, the kernel or a person."""
        return self.exit_code is not None and self.exit_code < 0

    def stop(self, *, now: bool = False) -> None:
        """Asks it to save a checkpoint and leave, or with `now` to leave without saving."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(AT_ONCE if now else signal.SIGTERM)

    def last_line(self) -> str:
        """How it was killed: it had no time to say so. Else its last output."""
        code = self.exit_code or 0
        if code < 0:
            return f"killed (signal {-code})"
        if self.log is None:
            return f"exit code {code}"
        return last_line(self.log) or "it wrote nothing"


def keeper_of_this() -> int | None:
    """The process that keeps this worker. 1, the first process of a container or the value of older versions, never
    ends.
    """
    said = os.environ.get(PARENT_VARIABLE, "")
    return int(said) if said.isdecimal() and said != "1" else None


def seconds_kept() -> float:
    """Since the start of this worker's keeper, or of this process: a request to stop is for all workers of a keeper,
    also where none of them is there to hear it, as between a failure and the next start.
    """
    return seconds_alive(os.getppid() if PARENT_VARIABLE in os.environ else os.getpid())


def default_num_workers(tell: Callable[[str], None] = lambda _: None, per_device: int = 1) -> int:
    """The number of free devices, or parts of them; 1 if none is free, which waits for the first. Reports devices that
    are held or left out.
    """
    devices = find_devices().in_parts(per_device)
    for line in (*devices.notes, *(f"left out: {each}" for each in devices.refused), *held_devices(devices)):
        tell(line)
    return max(1, len(free_devices(devices)))


def worker_environment(store: URL, storage: Path) -> dict[str, str]:
    """The environment of a worker: it carries the store's URL, as every user of the machine can read argv.

    `storage` is this machine's folder; if it mirrors a bucket, the worker gets the bucket's URL.
    """
    said = os.environ.get("HPSEARCH_STORAGE", "")
    url = store.render_as_string(hide_password=False)
    return {"HPSEARCH_STORE": url, "HPSEARCH_STORAGE": said if is_url(said) else str(storage)}


def share_cores(num_workers: int) -> dict[str, str]:
    """Two torch processes that each use all cores slow each other down many times."""
    if "OMP_NUM_THREADS" in os.environ or not _works_on_cpu():
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_workers))}


def start_worker(arguments: list[str], environment: dict[str, str], log: Path | None) -> WorkerProcess:
    """Starts `hpsearch worker` with `arguments`, in this process's environment with `environment` over it."""
    process = start_detached(arguments, environment | {PARENT_VARIABLE: str(os.getpid())}, log)
    return WorkerProcess(process, log)


def start_detached(
    arguments: list[str], environment: dict[str, str], log: Path | None, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches only its starter, which then asks it to stop."""
    with ExitStack() as files:
        output = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = files.enter_context(log.open("ab"))
        return subprocess.Popen(
            [sys.executable, "-m", "hpsearch", "worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={name: value for name, value in os.environ.items() if name != PARENT_VARIABLE} | environment,
            cwd=folder,
            start_new_session=True,
        )


def last_line(log: Path) -> str:
    """The last line of a log that isn't empty, safe for a terminal; '' if there is none. `status` reads it every few
    seconds, also from logs of weeks.
    """
    try:
        with log.open("rb") as content:
            content.seek(max(0, os.fstat(content.fileno()).st_size - _END_BYTES))
            lines = content.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((cut(line.strip(), _LONGEST_LINE) for line in reversed(lines) if line.strip()), "")


def _works_on_cpu() -> bool:
    """The worker reports a driver that doesn't answer; the others continue."""
    try:
        return any(device.is_cpu for device in find_devices().allowed)
    except HpsearchError:
        return False
