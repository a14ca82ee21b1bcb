"""A leash: runs a worker on a node of a Ray cluster, and ends it when the Ray task that holds the other end is gone.

Ray ends a task's process with SIGKILL and kills its direct children: a worker started as a child would save nothing,
or its trainer would stay behind. So this process is detached, in a session of its own, and reads from a pipe. When the
pipe closes, the task's process has died, in whatever way.

It reads lines: the task (JSON; it holds the store's password, which is in no command line and no file), then at any
time `gently` or `now`. A closed pipe means `gently`. It answers with one line of JSON, at the end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from hpsearch.launch.process import PARENT_VARIABLE, last_line
from hpsearch.trial import Record

GENTLY = b"gently"
NOW = b"now"
GRACE_S = 600.0
"""How long a worker may take to finish a step and save."""
_LOOK_EVERY_S = 0.2


class Tethered(Record):
    """The start parameters of a worker. `study_text`: the study file's text, for nodes that don't have the file."""

    arguments: Sequence[str]
    study_text: str
    environment: Mapping[str, str]
    setup: str
    folder: str
    log: str


class Ending(Record):
    """The worker's end: the exit code, negative for a signal, and its last output."""

    code: int
    said: str


def start_leash(task: Tethered) -> subprocess.Popen[bytes]:
    """The returned process forks and ends; its pipes are the leash: closing them lets the worker save and leave."""
    leash = subprocess.Popen(
        [sys.executable, "-m", "hpsearch.launch.leash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert leash.stdin is not None
    leash.stdin.write(task.model_dump_json().encode() + b"\n")
    return leash


def main() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray blocks SIGINT in its processes, and children inherit that
    with os.fdopen(0, "rb", buffering=0, closefd=False) as pipe:
        task = Tethered.model_validate_json(pipe.readline())
    ending = _hold(task)
    with contextlib.suppress(OSError):  # the other end may be closed
        os.write(1, ending.model_dump_json().encode() + b"\n")


def _hold(task: Tethered) -> Ending:
    with tempfile.TemporaryDirectory(prefix="hpsearch-") as temporary:
        try:
            worker = _start(task, Path(temporary))
        except OSError as error:
            return Ending(code=1, said=f"{error.filename or task.log}: {error.strerror} (on {os.uname().nodename})")
        _wait(worker)
    code = worker.returncode
    return Ending(code=code, said=f"killed by signal {-code}" if code < 0 else last_line(Path(task.log)))


def _start(task: Tethered, temporary: Path) -> subprocess.Popen[bytes]:
    """If this node has the study file, it is used where it is: the paths in it start at its folder."""
    study, *others = task.arguments
    if not Path(study).exists():
        copy = temporary / Path(study).name
        copy.write_text(task.study_text)
        study = str(copy)
    command = [sys.executable, "-m", "hpsearch", "worker", study, *others, "--keep"]
    if task.setup:
        command = ["bash", "-c", f'{task.setup}\nexec "$@"', "setup", *command]
    log = Path(task.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # It also leaves when this process dies.
            env={**os.environ, **task.environment, PARENT_VARIABLE: str(os.getpid())},
            cwd=task.folder if Path(task.folder).is_dir() else temporary,
            start_new_session=True,
        )


def _wait(worker: subprocess.Popen[bytes]) -> None:
    kill_at, is_held = float("inf"), True
    while worker.poll() is None:
        said = _hear(is_held)
        is_held = is_held and said != b""
        if NOW in (said or b"") or time.monotonic() >= kill_at:
            _kill(worker)
        elif said is not None and kill_at == float("inf"):
            worker.terminate()
            kill_at = time.monotonic() + GRACE_S


def _hear(is_held: bool) -> bytes | None:
    """None: nothing arrived for a moment; empty: the leash was released."""
    if not is_held:
        time.sleep(_LOOK_EVERY_S)
        return None
    readable, _, _ = select.select([0], [], [], _LOOK_EVERY_S)
    return os.read(0, 4096) if readable else None


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kills its children too: each has a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(worker.pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    worker.wait()


if __name__ == "__main__":
    main()
