"""Worker: claim a trial, have the trainer run it, tell how it ended. Repeat until the study is finished.

The store may be out of reach for a while: a training step never waits for it. Reports are kept and sent later,
and the end of a trial is tried again until it is told.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from tenacity import (
    before_sleep_log,
    retry,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from hpsearch.bridge.protocol import Checkpoint, Continue, Done, Event, Phase, Progress, Reported, Run, Stop
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer, Trainer
from hpsearch.bridge.witness import device_bytes, host_bytes
from hpsearch.errors import LeaseLost, StoreUnreachable, TrainerDied
from hpsearch.folders import JobFolder
from hpsearch.search import ActiveTrial, Search
from hpsearch.store import Activity, Lease, Store
from hpsearch.store.workers import is_dead
from hpsearch.study.open import OpenStudy
from hpsearch.trial import Outcome, TrialConfig, TrialResult

LEASE_S = 60.0
_RENEW_EVERY_S = 10.0
_BEAT_EVERY_S = 1.0
_TICK_S = 0.5
_OUTAGE_S = 3600.0
_MAX_DEATHS = 3

log = logging.getLogger("hpsearch.worker")
T = TypeVar("T")


class Step(Enum):
    """What one step of a worker came to."""

    WORKED = "a trial was run"
    NOTHING_FREE = "every remaining trial is another worker's"
    FINISHED = "the study has all of its trials"
    STOPPED = "the worker was asked to stop"


class Worker:
    def __init__(
        self,
        study: OpenStudy,
        store: Store,
        worker_id: str,
        start_trainer: StartTrainer,
        stop: StopFlag,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study = study
        self.worker_id = worker_id
        self._store = store
        self._start_trainer = start_trainer
        self._stop = stop
        self._clock = clock
        self._search = Search(store, study.spec)
        self._trainer: Trainer | None = None
        self._trainer_key = ""
        self._trials_in_process = 0
        self._activity = Activity(doing="starting")
        self._unsent: list[Reported] = []
        self._beat_at = self._renewed_at = float("-inf")

    def run(self) -> Step:
        """Works until the study is finished or a stop is asked for; always leaves cleanly."""
        try:
            self._insist(lambda: self._store.workers.register(self.worker_id, self.study.study_id, "starting"))
            while True:
                step = self.step()
                if step in (Step.FINISHED, Step.STOPPED):
                    return step
                if step is Step.NOTHING_FREE:
                    self._activity = Activity(doing="waiting for other workers' trials")
                    self._sign_of_life(None)
                    self._stop.wait(_TICK_S)
        except StoreUnreachable as error:
            if not self._stop.requested:
                raise
            log.warning("%s; another worker goes on with its trial once the lease has run out", error)
            return Step.STOPPED
        finally:
            self._end_trainer()
            self._try(lambda: self._store.workers.leave(self.worker_id))

    def step(self) -> Step:
        """Claim → run → finish, once."""
        if self._stop.requested:
            return Step.STOPPED
        lease = self._insist(self._claim)
        if lease is None:
            finished = self._insist(lambda: self._store.leases.slots(self.study.study_id)).all_finished
            return Step.FINISHED if finished else Step.NOTHING_FREE
        self._unsent = []
        try:
            trial = self._insist(lambda: self._search.start(lease))
            result = self._result_of(trial)
            return self._finish(trial, result)
        except LeaseLost as lost:
            log.warning("%s: its work is dropped here", lost)
            self._end_trainer()
            return Step.WORKED
        except Exception:
            # A mistake of ours, not of the trial's: it is given back whole, and this worker ends.
            self._try(lambda: self._store.leases.release(lease))
            raise

    def _claim(self) -> Lease | None:
        study_id = self.study.study_id
        holders = self._store.leases.seconds_left(study_id)
        dead = [worker_id for worker_id in holders if is_dead(worker_id)]
        return self._store.leases.claim(study_id, self.worker_id, LEASE_S, dead)

    def _result_of(self, trial: ActiveTrial) -> TrialResult:
        """The trial's result: an earlier worker's where it got that far, else by running it."""
        if trial.lease.result is not None:
            return TrialResult.model_validate_json(trial.lease.result)
        folder = self.study.storage.trial(self.study.spec.study, trial.number)
        config = self.study.trial_config(trial.number, trial.values)
        found = _left_behind(folder, config, trial.lease.attempt)
        if found is not None:
            return found
        if trial.lease.deaths >= _MAX_DEATHS:
            reason = f"{trial.lease.deaths} workers died while they ran it"
            return TrialResult(outcome=Outcome.FAILED, reason=reason)
        attempt = f", attempt {trial.lease.attempt}" if trial.lease.attempt > 1 else ""
        log.info("trial %d starts%s: %s", trial.number, attempt, _told(trial))
        try:
            return self._train(trial, config, folder)
        except TrainerDied as died:
            self._end_trainer()
            return TrialResult(outcome=Outcome.FAILED, reason=str(died))

    def _train(self, trial: ActiveTrial, config: TrialConfig, folder: JobFolder) -> TrialResult:
        folder.prepare(config)
        trainer = self._trainer_for(config)
        self._activity = Activity(doing="starting", trial=trial.number)
        trainer.send(Run(folder=folder.path))
        is_stopping = False
        while True:
            event = trainer.next_event(_TICK_S)
            self._note(event, trial.number)
            self._sign_of_life(trial.lease)
            if self._stop.urgent:
                raise TrainerDied("the worker was told twice to stop")
            if self._stop.requested and not is_stopping:
                is_stopping = True
                trainer.send(Checkpoint())
            if isinstance(event, Reported):
                trainer.send(Continue() if self._relay(trial, event) else Stop())
            if isinstance(event, Done):
                return self._witnessed(folder.read(TrialResult), trainer, event.clean, config)

    def _witnessed(self, result: TrialResult, trainer: Trainer, clean: bool, config: TrialConfig) -> TrialResult:
        """The result with the device memory as the driver sees it; the trainer goes if it isn't clean."""
        self._trials_in_process += 1
        if result.ledger is not None:
            ledger = result.ledger.model_copy(update={"witnessed_device_bytes": device_bytes(trainer.pid)})
            result = result.model_copy(update={"ledger": ledger})
            if ledger.not_given_back:
                log.warning("not given back: %s; a new trainer starts", ", ".join(ledger.not_given_back))
        limit = self.study.spec.searched.trials_per_process
        if not clean or config.taints_process or (limit and self._trials_in_process >= limit):
            self._end_trainer()
        return result

    def _relay(self, trial: ActiveTrial, event: Reported) -> bool:
        """Whether the trial goes on. While the store is out of reach it does, and the report is kept."""
        self._unsent.append(event)
        try:
            with self._store.reaching():
                return self._send_kept(trial)
        except StoreUnreachable as error:
            log.warning("%s; the report is kept and the trial goes on", error)
            return True

    def _send_kept(self, trial: ActiveTrial) -> bool:
        """Sends the reports that the store has not got yet; the pruner's word on the last one."""
        goes_on = True
        while self._unsent:
            goes_on = self._search.report(trial, self._unsent[0].report)
            self._unsent.pop(0)
        return goes_on

    def _finish(self, trial: ActiveTrial, result: TrialResult) -> Step:
        self._insist(lambda: self._send_kept(trial))
        if result.outcome is Outcome.STOPPED or (self._stop.urgent and result.outcome is Outcome.FAILED):
            self._insist(lambda: self._store.leases.release(trial.lease))
            log.info("trial %d is given back; the next worker continues it", trial.number)
            return Step.STOPPED
        self._insist(lambda: self._store.leases.store_result(trial.lease, result.model_dump_json()))
        self._insist(lambda: self._search.tell(trial, result))
        self._insist(lambda: self._store.leases.close(trial.lease))
        loss = f", loss {result.loss:.4f}" if result.loss is not None else ""
        reason = f": {result.reason}" if result.reason else ""
        log.info("trial %d is %s%s%s", trial.number, result.outcome, loss, reason)
        return Step.WORKED

    def _trainer_for(self, config: TrialConfig) -> Trainer:
        """The warm trainer, or a new one where there is none or this trial can't share it."""
        if self._trainer is None or self._trainer_key != config.process_key:
            self._end_trainer()
            self._trainer = self._start_trainer()
            self._trainer_key = config.process_key
            self._trials_in_process = 0
        return self._trainer

    def _end_trainer(self) -> None:
        if self._trainer is not None:
            self._trainer.end()
            self._trainer = None

    def _note(self, event: Event | None, number: int) -> None:
        now = self._activity
        match event:
            case Phase(name=name, done=done, total=total):
                self._activity = Activity(doing=name, trial=number, done=done, total=total)
            case Progress(step=step, num_steps=num_steps, loss=loss):
                self._activity = Activity(doing="training", trial=number, done=step, total=num_steps, loss=loss)
            case Reported(loss=loss):
                self._activity = now.model_copy(update={"doing": "validated"})

    def _sign_of_life(self, lease: Lease | None) -> None:
        """Renews the lease and tells what is being done, when due. Raises LeaseLost."""
        now = self._clock()
        if lease is not None and now - self._renewed_at >= _RENEW_EVERY_S:
            self._renewed_at = now
            self._try(lambda: self._store.leases.renew(lease, LEASE_S))
        if now - self._beat_at >= _BEAT_EVERY_S:
            self._beat_at = now
            pid = self._trainer.pid if self._trainer else 0
            memory = {"host_bytes": host_bytes(pid) if pid else 0, "device_bytes": device_bytes(pid) or 0}
            activity = self._activity.model_copy(update=memory)
            device = self._trainer.device if self._trainer else "none"
            self._try(lambda: self._store.workers.beat(self.worker_id, activity, device))

    def _try(self, write: Callable[[], None]) -> None:
        """Writes what may as well be written later."""
        try:
            with self._store.reaching():
                write()
        except StoreUnreachable as error:
            log.warning("%s", error)

    def _insist(self, ask: Callable[[], T]) -> T:
        """Asks until the store answers: an outage of an hour is survived.

        Raises StoreUnreachable after it, and at once where the worker is asked to stop: nothing is lost then, as the
        trial's folder holds its checkpoint or its result, and whoever leases it next continues from there.
        """

        @retry(
            retry=retry_if_exception_type(StoreUnreachable),
            wait=wait_random_exponential(multiplier=0.2, max=15),
            stop=lambda state: self._stop.requested or stop_after_delay(_OUTAGE_S)(state),
            sleep=self._stop.wait,
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        def asked() -> T:
            with self._store.reaching():
                return ask()

        return asked()


def _left_behind(folder: JobFolder, config: TrialConfig, attempt: int) -> TrialResult | None:
    """The result that an earlier attempt's trainer wrote but nobody told. Another study's folder is cleared away."""
    if not folder.config.exists():
        return None
    if attempt == 1 or folder.job() != config:
        shutil.rmtree(folder.path)
        return None
    if not folder.result.exists():
        return None
    result = folder.read(TrialResult)
    return None if result.outcome is Outcome.STOPPED else result


def _told(trial: ActiveTrial) -> str:
    return ", ".join(f"{knob} {value}" for knob, value in trial.values.items())
