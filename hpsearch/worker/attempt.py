"""One attempt at a trial: its folder, its history as the trainer reported it, and keeping the store up to date with it.

The trainer's journal is the truth: it is on the disk before the trainer waits for an answer. The store is updated when
it can be reached; while it can't, the trainer is told to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from hpsearch.bridge.follow import Listener
from hpsearch.bridge.protocol import Began, Event, Phase, Progress, Reported
from hpsearch.errors import StoreUnreachable
from hpsearch.search import ActiveTrial, Search
from hpsearch.store import Activity
from hpsearch.trial import Report
from hpsearch.worker.relay import Relay
from hpsearch.worker.signs import Signs

log = logging.getLogger("hpsearch.worker")


class Attempt(Listener):
    """Listens to the trainer while it runs one trial and renews the lease meanwhile; `look` samples its memory.

    Raises:
        LeaseLost: the trial belongs to another worker.
        TrialEnded: somebody ended it. Both come from the store's answer to an earlier call; the caller then ends the
            trainer.
    """

    def __init__(
        self, trial: ActiveTrial, search: Search, relay: Relay, signs: Signs, look: Callable[[], None]
    ) -> None:
        self.trial = trial
        self.began = False
        self.step = 0
        """The latest optimizer step."""
        self._search = search
        self._relay = relay
        self._signs = signs
        self._look = look
        self._reports: list[Report] = []
        self._bringing: Future[bool] | None = None
        self._activity = Activity(doing="starting", trial=trial.number)

    def hears(self, event: Event) -> None:
        match event:
            case Phase(name=name, done=done, total=total):
                self._doing(name, done, total)
            case Progress(step=step, num_steps=num_steps, loss=loss):
                self.step = step
                self._doing("training", step, num_steps, loss)
            case Began(reports=reports):
                self.began = True
                self._reports = list(reports)
                self._bring()
            case Reported():
                self._doing("validation done", 0, 0)

    def goes_on(self, report: Reported) -> bool:
        self._reports.append(report.report)
        answer = self._bring()
        if answer is None:
            log.warning("the store does not answer; report %d is in the journal and the trial continues", report.step)
            return True
        return answer

    def tick(self) -> None:
        self._look()
        self._heed()
        self._signs.give(self._activity, self.trial.lease, self.step)

    def _doing(self, name: str, done: int, total: int, loss: float | None = None) -> None:
        self._activity = Activity(doing=name, trial=self.trial.number, done=done, total=total, loss=loss)

    def _bring(self) -> bool | None:
        """The pruner's decision on the reports so far; None while the store does not answer. One request at a time."""
        if self._bringing is not None and not self._relay.is_answered(self._bringing):
            return None
        self._heed()
        reports = tuple(self._reports)
        self._bringing = self._relay.offer(lambda: self._search.bring(self.trial, reports))
        return self._heed() if self._relay.is_answered(self._bringing) else None

    def _heed(self) -> bool | None:
        """The answer to the last request, once it has arrived. Raises LeaseLost and TrialEnded."""
        if self._bringing is None or not self._bringing.done():
            return None
        answer, self._bringing = self._bringing, None
        try:
            return answer.result()
        except StoreUnreachable as error:
            log.warning("%s", error)
            return None
