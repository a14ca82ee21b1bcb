"""This machine as an engine: like `hpsearch run`, in the background. Each job is a process that keeps one worker."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import psutil

from hpsearch.errors import HpsearchError
from hpsearch.launch.keep import SAVE
from hpsearch.launch.launcher import JobState, JobView, Order
from hpsearch.launch.process import last_line, start_detached
from hpsearch.spec.base import Spec
from hpsearch.store import LaunchedJob, StoredLaunch
from hpsearch.store.workers import is_dead, is_of_this_machine, worker_id_of

_left: list[subprocess.Popen[bytes]] = []
"""Processes that this one started and leaves running. Python warns when the object of a running process is freed."""


class LocalOptions(Spec):
    """Workers on this machine: each takes a free device by itself."""


class Local:
    Options: ClassVar[type[Spec]] = LocalOptions
    reaches_other_machines: ClassVar[bool] = False

    def __init__(self, options: LocalOptions) -> None:
        del options

    def check(self, order: Order) -> None:
        del order

    def plan(self, order: Order) -> str:
        command = shlex.join(["hpsearch", "worker", *order.arguments, "--keep"])
        return f"{order.num_workers} × {command}\nin {order.folder}, with logs in {order.logs}"

    def start(self, order: Order) -> list[LaunchedJob]:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        logs = [order.logs / f"local-{stamp}-{os.getpid()}-{index}.txt" for index in range(order.num_workers)]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for log in logs:
                started.append(start_detached([*order.arguments, "--keep"], dict(order.environment), log, order.folder))
        except BaseException as error:
            for process in started:
                _end(process.pid, now=True)
                process.wait()
            if isinstance(error, OSError):
                where = error.filename or order.logs
                raise HpsearchError(f"no worker was started: {where}: {error.strerror}") from None
            raise
        _left.extend(started)
        ids = [worker_id_of(process.pid) for process in started]
        return [LaunchedJob(job_id=job_id, log=str(log)) for job_id, log in zip(ids, logs, strict=True)]

    def jobs(self, launch: StoredLaunch) -> list[JobView]:
        return [_view(job) for job in launch.jobs]

    def stop(self, launch: StoredLaunch, *, now: bool) -> None:
        for job in launch.jobs:
            if is_of_this_machine(job.job_id) and not is_dead(job.job_id):
                _end(int(job.job_id.split(":")[1]), now=now)


def _view(job: LaunchedJob) -> JobView:
    host = job.job_id.rsplit(":", 2)[0]
    if not is_of_this_machine(job.job_id):
        return JobView(job.job_id, JobState.UNKNOWN, f"a process of {host}", host, job.log)
    if not is_dead(job.job_id):
        return JobView(job.job_id, JobState.RUNNING, "", host, job.log)
    return JobView(job.job_id, JobState.GONE, last_line(Path(job.log)) if job.log else "", host, job.log)


def _end(pid: int, *, now: bool) -> None:
    """`now`: also its worker and the worker's trainer, which would need a moment to notice."""
    try:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)] if now else [process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL if now else SAVE)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise HpsearchError(f"process {pid} belongs to another user, who must end it") from None
