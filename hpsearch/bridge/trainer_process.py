"""The trainer process, seen from the worker: start it, send it a folder, read its events, end it."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from hpsearch.bridge.protocol import Command, Event, Ready, Run, read_event, to_line
from hpsearch.errors import TrainerDied
from hpsearch.trial import STARTING

_DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHDYNAMO_DISABLE": "1",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_FINISH_TIMEOUT": "20",
    "WANDB_INIT_TIMEOUT": "10",
}
"""Defaults for environment variables that the libraries read; the person's own values win.

OpenMP threads spin while they wait for each other: beside another busy process on the same cores, a tiny model's
training step on two threads takes 2.6 s instead of 0.2 s. bitsandbytes wraps functions in `torch.compile` on import,
which loads the whole compiler, about 3 s of each trainer's start, for a few CPU operations that run as well without it
(`bitsandbytes/backends/default/ops.py`, https://github.com/bitsandbytes-foundation/bitsandbytes). Trackers give up
within seconds, as `train.tracking` retries; MLflow's own seven retries take four minutes.
"""
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that people, schedulers and the kernel's out-of-memory killer send; a process does not raise them by
itself.
"""
_NUMBERS = re.compile(r"\{'\w+': .*\}")
"""What transformers prints at each logged step: `{'loss': 0.5, 'learning_rate': 0.001}`."""
_ASKED_S = 1.0
"""How long a trainer may take to leave after it was asked to."""
_SECRETS = (
    *("HPSEARCH_STORE", "PGPASSWORD", "PGPASSFILE", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("HPSEARCH_NOTIFY", "HPSEARCH_DASHBOARD_TOKEN"),  # the address of a chat is as secret as a password
)
"""The training plane has no access to a database or a bucket, and notifies nobody. (It may see HF_TOKEN: gated bases
need it.)
"""


class Trainer(Protocol):
    """The part of a trainer that a worker uses. Tests have another one, which follows a script."""

    pid: int

    @property
    def device(self) -> str: ...

    def send(self, command: Command) -> None: ...

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, or None when `timeout_s` passed. Raises TrainerDied when no more can come."""

    def end(self) -> None:
        """Ends the process, whatever it is doing, and returns when all of its memory is free."""


StartTrainer = Callable[[], Trainer]


class TrainerProcess:
    """`python -m hpsearch.train`, with its own pair of pipes for the protocol."""

    def __init__(
        self,
        log: Path,
        extra_environment: dict[str, str] | None = None,
        keeps_open: tuple[int, ...] = (),
        module: str = "hpsearch.train",
    ) -> None:
        """`keeps_open` are file descriptors that it inherits: what they lock stays locked until it is dead, too."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._logs = [_Log.from_now_on(log)]
        commands_in, commands_out = os.pipe()
        events_in, events_out = os.pipe()
        environment = _DEFAULTS | {name: value for name, value in os.environ.items() if name not in _SECRETS}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(commands_in), str(events_out)],
                pass_fds=(commands_in, events_out, *keeps_open),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment | (extra_environment or {}),
                start_new_session=True,  # the worker handles signals to its process group
            )
        os.close(commands_in)
        os.close(events_out)
        self._commands = os.fdopen(commands_out, "wb")
        self._events = os.fdopen(events_in, "rb", buffering=0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events, selectors.EVENT_READ)
        self._unread = b""
        self._lines: deque[bytes] = deque()
        self.pid = self._process.pid
        self.device = STARTING

    def send(self, command: Command) -> None:
        if isinstance(command, Run):
            self._logs = [self._logs[0], _Log.from_now_on(command.folder / "log.txt")]
        with contextlib.suppress(BrokenPipeError):  # next_event will raise TrainerDied
            self._commands.write(to_line(command))
            self._commands.flush()

    def next_event(self, timeout_s: float) -> Event | None:
        deadline = time.monotonic() + timeout_s
        while not self._lines:
            # Its death shows as the end of the pipe, but a child process may hold the pipe open. Check whether it lives
            # before reading, so that everything it wrote is read.
            # so that all it ever wrote is there to be read.
            is_dead = self._process.poll() is not None
            if not self._selector.select(0.0 if is_dead else max(0.0, deadline - time.monotonic())):
                if is_dead:
                    raise self._obituary()
                return None
            chunk = self._events.read(65536)
            if not chunk:
                raise self._obituary()
            *whole, self._unread = (self._unread + chunk).split(b"\n")
            self._lines.extend(whole)
        event = read_event(self._lines.popleft())
        if isinstance(event, Ready):
            self.device = event.device
        return event

    def end(self) -> None:
        """Asks first, by closing its pipe, then kills: the process, its session, and children that left the session."""
        descendants = _descendants(self._process.pid)
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ASKED_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait()
        self._selector.close()
        self._events.close()

    def _obituary(self) -> TrainerDied:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        hint = " (the kernel kills processes when the host's memory is used up)" if code == -signal.SIGKILL else ""
        written = [log for log in self._logs if log.last_line()]
        last = f"last words in {written[-1].file}: {written[-1].last_line()}" if written else "it did not say why"
        message = f"the trainer process ended with {how}{hint}; {last}"
        return TrainerDied(message, how, is_kill=-code in _KILLS)


@contextlib.contextmanager
def one_trainer(start: StartTrainer) -> Iterator[StartTrainer]:
    """Gives the same process to one job after the other, as starting one takes seconds. It ends with the last job."""
    started: list[Trainer] = []

    def lend() -> Trainer:
        if not started:
            started.append(start())
        return Borrowed(started[0])

    try:
        yield lend
    finally:
        for trainer in started:
            trainer.end()


class Borrowed:
    """A trainer that is not ended by its user."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.pid = trainer.pid
        self.send = trainer.send
        self.next_event = trainer.next_event

    @property
    def device(self) -> str:
        return self._trainer.device

    def end(self) -> None:
        pass


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@dataclass(frozen=True)
class _Log:
    """What is written to a file from a given moment on: earlier text may be another process's."""

    file: Path
    start: int

    @classmethod
    def from_now_on(cls, file: Path) -> _Log:
        return cls(file, file.stat().st_size if file.exists() else 0)

    def last_line(self) -> str | None:
        if not self.file.exists():
            return None
        written = self.file.read_bytes()[self.start :].decode(errors="replace")
        lines = [line.strip() for line in written.splitlines()]
        lines = [line for line in lines if line and not _NUMBERS.fullmatch(line)]
        return lines[-1] if lines else None
