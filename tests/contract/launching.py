"""What the contract of launchers is tested with: orders whose workers are real processes that wait for a store.

The store's address leads nowhere, so a worker needs no torch, writes a line, and stays until it is stopped.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hpsearch.launch.engines import ENGINES
from hpsearch.launch.launcher import JobState, JobView, Launcher, Order
from hpsearch.launch.sites import make_launcher
from hpsearch.store import LaunchedJob, StoredLaunch

SECRET = "s3cr3t"
NOWHERE = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/nowhere"
HERE_S, CLUSTER_S = 30.0, 120.0
"""How long is waited for what an engine of this machine does, and a cluster. A sixth of it for the end of what is
killed.
"""
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
    def patience_s(self) -> float:
        return CLUSTER_S if getattr(ENGINES[self.engine], "reaches_other_machines", True) else HERE_S

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

    def until_all(self, launch: StoredLaunch, state: JobState, when: str) -> list[JobView]:
        """The jobs, once all of them are in this state. `when`: after what, for the message if they never are."""
        deadline = time.monotonic() + self.patience_s
        while not (jobs := self.launcher.jobs(launch)) or any(job.state is not state for job in jobs):
            assert time.monotonic() < deadline, (
                f"{when}, every job must be {state.name} within {self.patience_s:g} s;"
                f" jobs() says {' and '.join(job.state.name for job in jobs) or 'nothing'}."
                f" What their logs have:\n{self.said(launch)}"
            )
            time.sleep(0.1)
        return jobs

    def until_said(self, job: LaunchedJob, words: str, when: str, times: int = 1) -> str:
        deadline = time.monotonic() + self.patience_s
        while (text := _read(job)).count(words) < times:
            assert time.monotonic() < deadline, (
                f"{when}, {job.log}, the job's log, must have {words!r} within {self.patience_s:g} s"
                f"{f', {times} times' if times > 1 else ''}; it has:\n{text or '(nothing)'}"
            )
            time.sleep(0.1)
        return text

    def until_ended(self, processes: Collection[psutil.Process], when: str) -> None:
        limit_s = self.patience_s / 6
        _, left = psutil.wait_procs(processes, limit_s)
        assert left == [], f"{when}, and {limit_s:g} s later {len(left)} processes are still there:{_shown(left)}"

    def said(self, launch: StoredLaunch) -> str:
        return "\n".join(_read(job) for job in launch.jobs)

    def workers(self) -> list[psutil.Process]:
        """The workers of this site that live, without the processes that keep them."""
        file = str(self.folder / "study.yaml")
        return self._living(lambda command: {"worker", file} <= {*command} and "--keep" not in command)

    def worker(self) -> psutil.Process:
        workers = self.workers()
        assert len(workers) == 1, f"a launch of one job must run one worker here, and runs {_shown(workers) or 'none'}"
        return workers[0]

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
        """Nothing is left behind, whatever the launcher's `stop` does."""
        try:
            for launch in self.launches:
                self.launcher.stop(launch, now=True)
            self.until_ended(self.processes(), "stop(now=True) was called for each launch")
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL ends also what is stopped by SIGSTOP. A keeper may start one more worker meanwhile."""
        while left := self.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, 1)


def _shown(processes: Collection[psutil.Process]) -> str:
    """Each with its command, and `stopped` where SIGSTOP holds it."""
    told = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            told.append(f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())}")
    return "\n".join(["", *told]) if told else ""


def _read(job: LaunchedJob) -> str:
    return Path(job.log or "").read_text(errors="replace") if job.log and Path(job.log).is_file() else ""
