"""Workers on this machine: one per GPU, or one on the CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from hpsearch.bridge.witness import num_gpus

PARENT_VARIABLE = "HPSEARCH_STARTED_BY_RUN"
"""Set for workers that `hpsearch run` starts: they stop when it is gone."""


@dataclass(frozen=True)
class WorkerJob:
    """A started worker: its process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def has_failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def stop(self) -> None:
        """Asks it to save a checkpoint and leave."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it wrote nothing"


def default_num_workers() -> int:
    return max(1, num_gpus())


def start_worker(index: int, num_workers: int, arguments: list[str], store: URL, storage: Path) -> WorkerJob:
    """Starts `hpsearch worker` with `arguments`; the store's URL travels in the environment, not in argv."""
    log = storage / "logs" / f"worker-{index}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "HPSEARCH_STORE": store.render_as_string(hide_password=False),
        "HPSEARCH_STORAGE": str(storage),
        PARENT_VARIABLE: "1",
    }
    if gpus := num_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = _nth_device(index % gpus)
    else:
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
    return WorkerJob(process, log)


def _nth_device(index: int) -> str:
    """Respects a CUDA_VISIBLE_DEVICES that is set already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else []
    return names[index] if index < len(names) else str(index)
