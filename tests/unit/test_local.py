"""This machine as an engine: what becomes of workers where not all of them can be started, or a stop is said twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpsearch.bridge.stopping import StopFlag
from hpsearch.errors import HpsearchError
from hpsearch.launch import keep, local
from hpsearch.launch.keep import STOPPED, keep_worker
from hpsearch.launch.launcher import JobState, Order
from hpsearch.launch.local import Local, LocalOptions
from hpsearch.launch.process import WorkerProcess
from hpsearch.store import LaunchedJob, StoredLaunch
from hpsearch.store.workers import worker_id_of

_COUNTS = """\
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked\\n"))
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def launcher() -> Local:
    return Local(LocalOptions())


def test_where_one_can_t_be_started_none_is_left(
    launcher: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_arguments: object, _environment: object, log: Path, _folder: object) -> subprocess.Popen[bytes]:
        if len(started) == 2:
            raise PermissionError(13, "Permission denied", str(log))
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[-1]

    monkeypatch.setattr(local, "start_detached", start)
    order = Order("demo", 3, ["study.yaml"], {}, tmp_path, tmp_path / "logs")
    with pytest.raises(HpsearchError, match=r"no worker was started: .*-2.txt: Permission denied"):
        launcher.start(order)
    assert [process.returncode for process in started] == [-signal.SIGKILL, -signal.SIGKILL], "waited for"


def test_a_folder_for_logs_that_can_t_be_made_has_words(launcher: Local, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(HpsearchError, match=r"no worker was started: .*logs: File exists"):
        launcher.start(Order("demo", 1, ["study.yaml"], {}, tmp_path, tmp_path / "logs"))


@pytest.fixture
def own_signals() -> Iterator[None]:
    """This process's own handlers come back afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, keep.SAVE)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_stop_that_is_said_twice_lets_the_worker_save_all_the_same(
    launcher: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user runs `hpsearch stop` again if nothing seems to happen: a step may take a minute."""
    me = StoredLaunch(1, "local", {}, [LaunchedJob(job_id=worker_id_of(os.getpid()))], "here", 0.0)
    started: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> WorkerProcess:
        command = [sys.executable, "-c", _COUNTS]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[0].stdout is not None
        assert started[0].stdout.readline() == b"there\n"
        return WorkerProcess(started[0])

    class Twice(StopFlag):
        """At its first sleeps `hpsearch stop` is given, twice; then the worker has saved."""

        sleeps = 0

        def wait(self, _seconds: float) -> None:
            self.sleeps += 1
            if self.sleeps <= 2:
                launcher.stop(me, now=False)
            if self.sleeps == 4:
                assert started[0].stdin is not None
                started[0].stdin.close()
                started[0].wait(30)

    monkeypatch.setattr(keep, "start_worker", start)
    stop = Twice()
    stop.install(watch_parent=False)
    said: list[str] = []
    assert keep_worker([], {}, stop, said.append) == STOPPED
    with started[0] as worker:
        assert worker.stdout is not None
        assert worker.stdout.read() == b"asked\n"
    assert said == ["stopping …"]  # `hpsearch stop --now` may be what ends the job


def test_another_user_s_job_is_not_ended_and_it_is_said(launcher: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil.Process, "send_signal", refuse)
    job = LaunchedJob(job_id=worker_id_of(os.getpid()))
    with pytest.raises(HpsearchError, match="belongs to another user, who must end it"):
        launcher.stop(StoredLaunch(1, "local", {}, [job], "here", 0.0), now=False)


def test_the_reason_of_a_job_that_is_gone_is_the_end_of_its_log_and_moves_no_cursor(
    launcher: Local, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"x" * 2**17 + b"\nhpsearch: no device\x1b[2J can be used here\r\n\n")
    gone = f"{worker_id_of(os.getpid()).rsplit(':', 1)[0]}:1@{worker_id_of(os.getpid()).partition('@')[2]}"
    launch = StoredLaunch(1, "local", {}, [LaunchedJob(job_id=gone, log=str(log))], "here", 0.0)
    (job,) = launcher.jobs(launch)
    assert (job.state, job.reason) == (JobState.GONE, r"hpsearch: no device\x1b[2J can be used here")
