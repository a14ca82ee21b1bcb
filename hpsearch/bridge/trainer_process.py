"""The trainer process, seen from the worker: start it, send it a folder, read its events, end it."""

from __future__ import annotations

import contextlib
import os
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
"""What the libraries read of their environment, where the person has not said it otherwise.

OpenMP's threads spin while they wait for each other: beside any other busy process on the same cores that costs a tiny
model's training step on two threads 2.6 s instead of 0.2 s. bitsandbytes wraps functions in `torch.compile` as it is
imported, which loads the whole compiler, some 3 s of each trainer's start, for a few operations of the CPU that run as
well without it (`bitsandbytes/backends/default/ops.py`, https://github.com/bitsandbytes-foundation/bitsandbytes).
Trackers give up within seconds: `train.tracking` asks them again. MLflow's own seven retries take four minutes.
"""
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""What people, schedulers and the kernel's memory killer send; no process dies of them by itself."""
STARTING = "starting"
"""The device of a trainer that is not ready yet."""
_ASKED_S = 1.0
"""How long a trainer that was asked to end may take: it only has to leave."""
_SECRETS = (
    *("HPSEARCH_STORE", "PGPASSWORD", "PGPASSFILE", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("HPSEARCH_NOTIFY", "HPSEARCH_DASHBOARD_TOKEN"),  # an address of a chat is as good as a password
)
"""The training plane knows no database and no bucket, and calls nobody. (It may see HF_TOKEN: gated bases need it.)"""


class Trainer(Protocol):
    """What a worker needs of a trainer. `fake.ScriptedTrainer` is the other implementation."""

    pid: int

    @property
    def device(self) -> str: ...

    def send(self, command: Command) -> None: ...

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, or None when `timeout_s` passed. Raises TrainerDied when no more can come."""

    def end(self) -> None:
        """Ends the process, whatever it does, and returns when all of its memory is free."""


StartTrainer = Callable[[], Trainer]


class TrainerProcess:
    """`python -m hpsearch.train`, with a pair of pipes of its own for the protocol."""

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
                start_new_session=True,  # a signal to the worker's group is the worker's to handle
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
        with contextlib.suppress(BrokenPipeError):  # next_event will say that it died
            self._commands.write(to_line(command))
            self._commands.flush()

    def next_event(self, timeout_s: float) -> Event | None:
        deadline = time.monotonic() + timeout_s
        while not self._lines:
            # Its death shows at the end of the pipe, but a child of its own may hold the pipe open. Looked at first,
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
        """Asked first, by closing its pipe, then killed: the process, its session, and whatever left the session."""
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
        told = [log for log in self._logs if log.last_line()]
        last = f"last words in {told[-1].file}: {told[-1].last_line()}" if told else "it printed nothing"
        message = f"the trainer process ended with {how}{hint}; {last}"
        return TrainerDied(message, how, is_kill=-code in _KILLS)


@contextlib.contextmanager
def one_trainer(start: StartTrainer) -> Iterator[StartTrainer]:
    """Lends the same process to one job after the other: starting one takes seconds. It ends with the last of them."""
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
    """A trainer that outlives whoever borrows it."""

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
    """What is written to a file from some moment on: before it, another process's words may stand there."""

    file: Path
    start: int

    @classmethod
    def from_now_on(cls, file: Path) -> _Log:
        return cls(file, file.stat().st_size if file.exists() else 0)

    def last_line(self) -> str | None:
        if not self.file.exists():
            return None
        written = self.file.read_bytes()[self.start :].decode(errors="replace")
        lines = [line.strip() for line in written.splitlines() if line.strip()]
        return lines[-1] if lines else None
