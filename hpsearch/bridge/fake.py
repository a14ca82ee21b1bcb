"""A trainer without a process, for tests of everything on this side of the bridge. It replays a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hpsearch.bridge.protocol import Checkpoint, Command, Done, Event, Reported, Run, Stop
from hpsearch.errors import TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.trial import Outcome, Report, TrialConfig, TrialResult

Script = Callable[[TrialConfig], list[float]]
"""A trial's validation losses, one per report."""


class FakeTrainer:
    """Answers every trial with the losses that `script` gives for its config; dies where the script raises."""

    pid = 0
    device = "none"

    def __init__(self, script: Script) -> None:
        self._script = script
        self._events: Iterator[Event] = iter(())
        self._outcome = Outcome.COMPLETE
        self.ended = False

    def send(self, command: Command) -> None:
        match command:
            case Run(folder=folder):
                self._outcome = Outcome.COMPLETE
                self._events = self._play(JobFolder(folder))
            case Stop():
                self._outcome = Outcome.PRUNED
            case Checkpoint():
                self._outcome = Outcome.STOPPED

    def next_event(self, timeout_s: float) -> Event | None:
        del timeout_s
        try:
            return next(self._events)
        except StopIteration:
            raise TrainerDied("the script is at its end") from None

    def end(self) -> None:
        self.ended = True

    def _play(self, folder: JobFolder) -> Iterator[Event]:
        config = folder.job()
        assert isinstance(config, TrialConfig)
        reports: list[Report] = []
        for step, loss in enumerate(self._script(config), start=1):
            reports.append(Report(step=step, loss=loss))
            yield Reported(step=step, num_reports=config.budget.reports, loss=loss)
            if self._outcome is not Outcome.COMPLETE:
                break
        folder.write_result(TrialResult(outcome=self._outcome, reports=reports, num_steps=len(reports)))
        yield Done(clean=True)
