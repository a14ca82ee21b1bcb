"""How a trial's attempt ends in the store: with a result, released, or released with its device set aside.

Every ending can be repeated: if a worker is killed in the middle of one, the next worker finds all that it needs.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from hpsearch.errors import LeaseLost, StoreUnreachable, TrainerDied
from hpsearch.mirror.mirror import Mirror
from hpsearch.search import ActiveTrial, Search
from hpsearch.store import Lease, Store
from hpsearch.store.attempts import Ending
from hpsearch.study.open import OpenStudy
from hpsearch.trial import Outcome, TrialResult
from hpsearch.worker.failures import ALIKE, MAX_STUMBLES, Consequence, Doctor, alike, struck
from hpsearch.worker.relay import Relay

log = logging.getLogger("hpsearch.worker")


CONTINUES = "it continues from its last checkpoint"
"""The end of a log's line about a trainer that died."""


class Step(Enum):
    """The result of one step of a worker."""

    WORKED = "a trial ended"
    NOTHING_FREE = "all remaining trials belong to other workers"
    FINISHED = "the study has all of its trials"
    STOPPED = "the worker was asked to stop"
    PAUSED = "the study is paused"
    LIMIT = "the study has reached its limit"
    SET_ASIDE = "the device is set aside"


NO_MORE_TRIALS = 3
EXIT_CODES = {
    Step.FINISHED: 0,
    Step.LIMIT: 0,
    Step.STOPPED: 130,
    Step.PAUSED: NO_MORE_TRIALS,
    Step.SET_ASIDE: NO_MORE_TRIALS,
}
"""Exit codes of a worker process. NO_MORE_TRIALS: no replacement is useful before a person has looked."""


class Endings:
    """Each method ends one attempt and returns the result of the step.

    Raises:
        LeaseLost: another worker has the slot, and nothing was changed.
        StoreUnreachable: as `Relay.ask` does. The next worker that claims the slot repeats the ending.
    """

    def __init__(
        self, study: OpenStudy, store: Store, search: Search, relay: Relay, worker_id: str, mirror: Mirror
    ) -> None:
        self._study = study
        self._store = store
        self._search = search
        self._relay = relay
        self._worker_id = worker_id
        self._mirror = mirror
        self._doctor = Doctor()

    @property
    def suspects(self) -> Collection[int]:
        """Slots that this device should try after all others."""
        return self._doctor.suspects

    def judge(self, trial: ActiveTrial, result: TrialResult) -> Step:
        """The result of this worker's own trainer: stored, unless the trial was stopped or the machine failed."""
        if result.outcome is Outcome.STOPPED:
            return self.give_back(trial, result)
        verdict = self._doctor.of_result(trial.lease.slot, result)
        if verdict.consequence is Consequence.SET_ASIDE:
            return self._set_aside(trial.lease, verdict.reason)
        return self.tell(trial, result)

    def tell(self, trial: ActiveTrial, result: TrialResult) -> Step:
        """Stores the trial's result, from any worker's trainer: it says nothing about this worker's device."""
        try:
            self._relay.ask(lambda: self._search.tell(trial, result))
        except (LeaseLost, StoreUnreachable):
            raise
        except Exception:  # a bug in hpsearch: the next worker stores the result without training again
            self._relay.ask(lambda: self._store.leases.store_result(trial.lease, result.model_dump_json()))
            raise
        if result.outcome is not Outcome.FAILED:  # `hpsearch retry` continues from there
            folder = self._study.storage.trial(self._study.uid, trial.number)
            folder.drop_checkpoints()
            self._mirror.told(folder)
        report = result.report_that_counts(self._study.spec.objectives[0])
        loss = f", loss {report.loss:.4f}" if report else ""
        reason = f": {result.reason}" if result.reason else ""
        log.info("trial %d is %s%s%s", trial.number, result.outcome, loss, reason)
        if result.outcome is Outcome.FAILED:
            self._relay.ask(self._pause_where_all_fail)
        return Step.WORKED

    def give_back(self, trial: ActiveTrial, result: TrialResult | None = None) -> Step:
        """The worker was asked to stop."""
        if result is not None and result.reports:  # none: training had not begun, and the store has older reports
            self._relay.ask(lambda: self._search.bring(trial, result.reports))
        self._relay.ask(lambda: self._store.leases.give_back(trial.lease))
        log.info("trial %d is released; the next worker continues it", trial.number)
        return Step.STOPPED

    def bury(self, trial: ActiveTrial, died: TrainerDied, *, began: bool, step: int) -> Step:
        """The trainer died at optimizer step `step`; `began`: it had begun to train."""
        got_further = step > trial.lease.progress
        verdict = self._doctor.of_death(trial.lease.slot, died, began=began, got_further=got_further)
        if verdict.consequence is Consequence.SET_ASIDE:
            return self._set_aside(trial.lease, verdict.reason)
        log.warning("trial %d: %s; %s", trial.number, died, CONTINUES)
        lease = struck(trial.lease, f"attempt {trial.lease.attempt}: {died}", step) if began else trial.lease
        self._relay.ask(lambda: self._store.leases.release(lease))
        return Step.WORKED

    def _set_aside(self, lease: Lease, reason: str) -> Step:
        log.error("this device takes no more trials: %s", reason)
        self._relay.ask(lambda: self._store.leases.give_back(lease, Ending.SET_ASIDE))
        if self._relay.ask(lambda: self._store.workers.set_aside(self._worker_id, reason)):
            why = f"every device is set aside, the last one because of this: {reason}"
            self._relay.ask(lambda: self._store.orders.pause(self._study.study_id, why))
        return Step.SET_ASIDE

    def _pause_where_all_fail(self) -> None:
        reasons = self._search.failures_so_far()
        if reasons is None:
            return
        study_id = self._study.study_id
        new = reasons[self._store.orders.failures_forgiven(study_id) :]
        if len(new) >= ALIKE and len({alike(reason) for reason in new[-ALIKE:]}) == 1:
            why = f"the first {len(reasons)} trials all failed, the last {ALIKE} the same way: {new[-1]}"
            if self._store.orders.pause(study_id, why):
                log.error("the study pauses: %s", why)

    def stumble(self, lease: Lease) -> Step:
        """A bug in hpsearch, not a fault of the trial: two more workers may try."""
        trace = traceback.format_exc()
        mistake = trace.splitlines()[-1]
        verdict = self._doctor.of_stumble(lease.slot, mistake)
        if verdict.consequence is Consequence.SET_ASIDE:
            return self._set_aside(lease, verdict.reason)
        log.error("a mistake of hpsearch at slot %d:\n%s", lease.slot, trace)
        lease = replace(lease, stumbles=lease.stumbles + 1, reasons=(*lease.reasons, mistake))
        if lease.stumbles < MAX_STUMBLES:
            self._relay.ask(lambda: self._store.leases.release(lease, Ending.MISTAKE))
            return Step.WORKED
        reason = f"given up: {lease.stumbles} workers failed at it, the last with {mistake}"
        result = TrialResult(outcome=Outcome.FAILED, reason=reason, traceback=trace)
        self._relay.ask(lambda: self._search.put_aside(lease, result))
        self._relay.ask(self._pause_where_all_fail)
        return Step.WORKED
