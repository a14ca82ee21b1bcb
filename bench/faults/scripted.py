"""A trainer without a process, which follows a script: for crowds, and for tests of the worker's side of the bridge.

Like a real trainer, it writes each report to the folder's journal and history before it sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hpsearch.bridge.protocol import Began, Command, Done, Event, Progress, Prune, Reported, Run, Stop
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.trial import HistoryPoint, Outcome, Report, TrialConfig, TrialResult

Play = Callable[["ScriptedTrainer", JobFolder], Iterator[Event | None]]
"""The events of one job, as a generator that continues each time the worker asks for the next event."""


class ScriptedTrainer:
    """Remembers the commands it was sent; dies when its play ends."""

    pid = 0
    device = "none"

    def __init__(self, play: Play) -> None:
        self._play = play
        self._events: Iterator[Event | None] = iter(())
        self.told: list[Command] = []
        self.ended = False

    def send(self, command: Command) -> None:
        self.told.append(command)
        if isinstance(command, Run):
            self._events = self._play(self, JobFolder(command.folder))
            self._folder = JobFolder(command.folder)

    def next_event(self, timeout_s: float) -> Event | None:
        assert timeout_s > 0
        assert not self.ended, "a trainer that was ended has no more events"
        for coming in self._events:
            self._write(coming)
            return coming
        raise TrainerDied("the play is at its end")

    def end(self) -> None:
        self.ended = True

    def _write(self, coming: Event | None) -> None:
        match coming:
            case Began(reports=reports):
                self._folder.journal.write_text("".join(_line(report) for report in reports))
            case Reported():
                _append(self._folder.journal, _line(coming.report))
            case Progress(step=step, loss=loss):
                _append(self._folder.history, _line(HistoryPoint(step=step, loss=loss or 0.0, learning_rate=0.0)))


def _line(record: Report | HistoryPoint) -> str:
    return record.model_dump_json() + "\n"


def _append(file: Any, line: str) -> None:
    with file.open("a") as lines:
        lines.write(line)


def ending(folder: JobFolder, outcome: Outcome = Outcome.COMPLETE, *losses: float, **more: Any) -> Iterator[Event]:
    """The end of a training: writes the result, then sends it. `clean` goes into the event, the rest into the
    result.
    """
    clean = more.pop("clean", True)
    reports = [Report(step=step, loss=loss) for step, loss in enumerate(losses, start=1)]
    folder.write_result(TrialResult(outcome=outcome, reports=reports, num_steps=len(reports), **more))
    yield Done(clean=clean)


def training(losses: Callable[[TrialConfig], list[float]]) -> Play:
    """A training that reports the losses that `losses` returns for its config, unless it is stopped first."""

    def play(trainer: ScriptedTrainer, folder: JobFolder) -> Iterator[Event | None]:
        config = folder.job()
        assert isinstance(config, TrialConfig)
        yield Began()
        reported: list[float] = []
        for step, loss in enumerate(losses(config), start=1):
            reported.append(loss)
            yield Reported(step=step, num_reports=config.budget.reports, loss=loss)
            if isinstance(trainer.told[-1], Prune | Stop):
                outcome = Outcome.PRUNED if isinstance(trainer.told[-1], Prune) else Outcome.STOPPED
                yield from ending(folder, outcome, *reported)
        yield from ending(folder, Outcome.COMPLETE, *reported)

    return play
