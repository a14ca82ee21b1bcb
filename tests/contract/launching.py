"""What the contract of launchers is tested with: orders whose workers are real processes that wait for a store.

The store's address leads nowhere, so a worker needs no torch, writes a line, and stays until it is stopped.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hpsearch.launch.launcher import JobState, JobView, Launcher, Order
from hpsearch.launch.sites import make_launcher
from hpsearch.store import LaunchedJob, StoredLaunch

SECRET = "s3cr3t"
NOWHERE = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/nowhere"
PATIENCE_S = 120.0
STUDY = """\
study: waiting
task: text-sft
model: {base: "tiny:qwen2"}
data: {source: rows.jsonl}
search:
  space: {training.learning_rate: {low: 1e-6, high: 1e-3, log: true}}
"""


@dataclass
class Site:
    """An engine, ready to be used, and the folder that its workers start in."""

    engine: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    launches: list[StoredLaunch] = field(default_factory=list)

    @property
    def launcher(self) -> Launcher:
        return make_launcher(self.engine, self.options)

    def order(self, num_workers: int = 2, study: str = STUDY) -> Order:
        file = self.folder / "study.yaml"
        file.write_text(study)
        return Order(
            study="waiting",
            num_workers=num_workers,
            arguments=[str(file), "--wait-for-store", "60"],
            environment={"HPSEARCH_STORE": NOWHERE, "HPSEARCH_STORAGE": str(self.folder / "storage")},
            folder=self.folder,
            logs=self.folder / "storage" / "logs" / "waiting",
        )

    def start(self, order: Order) -> StoredLaunch:
        jobs = self.launcher.start(order)
        launch = StoredLaunch(1, self.engine, self.options, jobs, socket.gethostname(), time.time())
        self.launches.append(launch)
        return launch

    def states(self, launch: StoredLaunch) -> list[JobState]:
        return [job.state for job in self.launcher.jobs(launch)]

    def until(self, launch: StoredLaunch, is_so: Callable[[list[JobView]], bool]) -> list[JobView]:
        """The jobs, once they are as is wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(jobs := self.launcher.jobs(launch)):
            assert time.monotonic() < deadline, f"{jobs}\n{self.said(launch)}"
            time.sleep(0.1)
        return jobs

    def until_said(self, job: LaunchedJob, words: str, times: int = 1) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while (text := _read(job)).count(words) < times:
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return text

    def said(self, launch: StoredLaunch) -> str:
        return "\n".join(_read(job) for job in launch.jobs)

    def workers(self) -> list[psutil.Process]:
        """The workers of this site that live, without the processes that keep them."""
        file = str(self.folder / "study.yaml")
        return self._living(lambda command: {"worker", file} <= {*command} and "--keep" not in command)

    def processes(self) -> list[psutil.Process]:
        """All that was started for this site and lives: workers, and what keeps them, also where a shell does."""
        return self._living(lambda command: str(self.folder / "study.yaml") in " ".join(command))

    @staticmethod
    def _living(is_meant: Callable[[list[str]], bool]) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if is_meant(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        for launch in self.launches:
            self.launcher.stop(launch, now=True)


def _read(job: LaunchedJob) -> str:
    return Path(job.log or "").read_text(errors="replace") if job.log and Path(job.log).is_file() else ""
