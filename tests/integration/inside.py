"""Training within the test's own process: it starts at once, and all that happens in it can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpsearch.bridge.protocol import Command, Done, Event, Reported, Run
from hpsearch.folders import JobFolder
from hpsearch.train.bases import Bases
from hpsearch.train.channel import Channel
from hpsearch.train.ledger import LedgerBook
from hpsearch.train.loop import run_trial
from hpsearch.train.serve import _do, _is_clean
from hpsearch.trial import Record, TrialConfig, TrialResult


class Answering(Channel):
    """A worker that answers reports, and may ask for a checkpoint after an event."""

    def __init__(
        self, goes_on: Callable[[Reported], bool] = lambda _: True, stops_at: Callable[[Record], bool] = lambda _: False
    ) -> None:
        self._goes_on = goes_on
        self._stops_at = stops_at
        self._asked = False
        self.sent: list[Record] = []

    def send(self, event: Record) -> None:
        self.sent.append(event)
        self._asked = self._asked or self._stops_at(event)

    def report(self, event: Reported) -> bool:
        self.send(event)
        return self._goes_on(event)

    @property
    def stop_wanted(self) -> bool:
        return self._asked


class InsideTrainer:
    """A trainer in the test's own process: it does the whole job when it is asked to, and then says what happened."""

    pid, device = 0, "none"

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._events: list[Event] = []

    def send(self, command: Command) -> None:
        if isinstance(command, Run):
            self._events = self._inside.serve(JobFolder(command.folder))

    def next_event(self, timeout_s: float) -> Event | None:
        del timeout_s
        return self._events.pop(0)

    def end(self) -> None:
        pass


class Inside:
    """Runs trials on warm bases."""

    def __init__(self) -> None:
        self.bases = Bases(lambda *_: None)
        self._book = LedgerBook()

    def run(
        self,
        folder: Path,
        config: TrialConfig,
        goes_on: Callable[[Reported], bool] = lambda _: True,
        stops_after: int | None = None,
    ) -> TrialResult:
        """`stops_after`: the number of the report after which the worker asks for a checkpoint."""

        def stops_at(event: Record) -> bool:
            return isinstance(event, Reported) and event.step == stops_after

        return self.run_for(Answering(goes_on, stops_at), folder, config)

    def run_for(self, worker: Answering, folder: Path, config: TrialConfig) -> TrialResult:
        trial = JobFolder(folder)
        trial.prepare(config)
        result = self.attempt(worker, trial, config)
        assert result.traceback is None, result.traceback
        trial.write_result(result)
        return result

    def serve(self, folder: JobFolder) -> list[Event]:
        """Any job of a prepared folder, as a trainer process does it; what it would say of it."""
        worker = Answering()
        result = _do(folder.job(), folder, self.bases, self._book, worker)
        folder.write_result(result)
        return [*worker.sent, Done(clean=_is_clean(result))]  # type: ignore[list-item]

    def attempt(self, worker: Answering, folder: JobFolder, config: TrialConfig) -> TrialResult:
        """In a prepared folder; it may fail."""
        return run_trial(config, folder, self.bases, self._book, worker)
