"""One real trainer process for all jobs of a test file."""

from __future__ import annotations

from pathlib import Path

from hpsearch.bridge.protocol import Command, Event, Phase
from hpsearch.bridge.trainer_process import Trainer, TrainerProcess


class Trainers:
    """One real trainer process for all jobs, as long as nobody kills it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: TrainerProcess | None = None

    def start(self) -> Trainer:
        if self._process is None:
            self._process = TrainerProcess(self._log)
        return Kept(self._process)

    def start_and_interrupt(self) -> Trainer:
        """The user presses Ctrl-C while the tuned model answers, after the first batch."""
        trainer = Interrupted(TrainerProcess(self._log))
        self.end()
        return trainer

    def end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class Kept:
    """A trainer that is ready for the next job."""

    def __init__(self, process: TrainerProcess) -> None:
        self._process = process
        self.pid, self.device = process.pid, process.device

    def send(self, command: Command) -> None:
        self._process.send(command)

    def next_event(self, timeout_s: float) -> Event | None:
        return self._process.next_event(timeout_s)

    def end(self) -> None:
        pass


class Interrupted(Kept):
    def next_event(self, timeout_s: float) -> Event | None:
        event = super().next_event(timeout_s)
        if isinstance(event, Phase) and event.name == "answers: tuned" and event.done:
            raise KeyboardInterrupt
        return event

    def end(self) -> None:
        self._process.end()
