"""The trainer's end of the bridge. A thread reads commands, so that the worker's death is noticed at once."""

from __future__ import annotations

import os
import queue
import threading
from typing import BinaryIO

from hpsearch.bridge.protocol import Command, Continue, Phase, Prune, Reported, Run, Stop, read_command, to_line
from hpsearch.trial import Record


class Channel:
    """Sends events, receives commands. When the worker is dead, reading or writing ends this process; nothing is
    raised.
    """

    doing = "starting"
    """The present phase, for the reason of a failure."""

    def __init__(self, commands: BinaryIO, events: BinaryIO) -> None:
        self._commands = commands
        self._events = events
        self._lock = threading.Lock()
        self._received: queue.Queue[Command] = queue.Queue()
        self._stop_wanted = threading.Event()
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def send(self, event: Record) -> None:
        with self._lock:
            try:
                self._events.write(to_line(event))
                self._events.flush()
            except BrokenPipeError:
                self._worker_is_gone()

    def tell(self, name: str, done: int, total: int) -> None:
        """Progress outside of training steps."""
        self.doing = name
        self.send(Phase(name=name, done=done, total=total))

    def next_job(self) -> Run:
        while True:
            command = self._received.get()
            if isinstance(command, Run):
                return command

    def report(self, event: Reported) -> bool:
        """Sends a validation loss and waits for the answer; False: the trial is pruned."""
        self.send(event)
        while True:
            command = self._received.get()
            if isinstance(command, Continue | Prune):
                return isinstance(command, Continue)

    @property
    def stop_wanted(self) -> bool:
        """Whether the worker asked to save and end the job."""
        return self._stop_wanted.is_set()

    def _listen(self) -> None:
        for line in self._commands:
            command = read_command(line)
            if isinstance(command, Run):  # handled here, to keep the order of commands: a stop may follow at once
                self._stop_wanted.clear()
            if isinstance(command, Stop):
                self._stop_wanted.set()
            self._received.put(command)
        self._worker_is_gone()

    @staticmethod
    def _worker_is_gone() -> None:
        """Without a worker the process ends, and the driver frees its memory."""
        os._exit(1)
