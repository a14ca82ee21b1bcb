"""Worker: claim a trial, have the trainer run it, store how it ended. Repeat until the study is finished."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from hpsearch.bridge.follow import follow
from hpsearch.bridge.stopping import StopFlag
from hpsearch.bridge.trainer_process import StartTrainer
from hpsearch.bridge.witness import device_bytes, device_errors, host_bytes
from hpsearch.errors import Interrupted, LeaseLost, StoreUnreachable, TrainerDied, TrialEnded
from hpsearch.folders import JobFolder, TrialFolder
from hpsearch.mirror.mirror import FETCH_S, PATIENCE_S, Mirror, waited
from hpsearch.search import ActiveTrial, Search
from hpsearch.search.facts import STARTED_OVER
from hpsearch.search.usage import Usage, reached
from hpsearch.store import Activity, Handover, Lease, Store
from hpsearch.store.workers import DEAD_WORKERS
from hpsearch.study.open import OpenStudy
from hpsearch.trial import STARTING, Outcome, TrialResult
from hpsearch.worker.attempt import Attempt
from hpsearch.worker.endings import Endings, Step
from hpsearch.worker.failures import MAX_STRIKES, given_up, is_machines, struck
from hpsearch.worker.relay import WAIT_LIMIT_S, Relay
from hpsearch.worker.signs import LEASE_S, Signs
from hpsearch.worker.warm import WarmTrainer

log = logging.getLogger("hpsearch.worker")


_MOMENT_S = 5.0
_LAST = (Step.FINISHED, Step.STOPPED, Step.PAUSED, Step.LIMIT, Step.SET_ASIDE)


class Worker:
    """Works on one study with one device, until no work is left, a limit is reached or a stop is requested.

    Made for one `run`: it registers in the store, makes `step` after `step` (a claimed slot and the end of its trial),
    and leaves: it ends the trainer, marks its row as gone, and gives the mirror time for the last files. It holds one
    lease at a time, and keeps its trainer from trial to trial while that is clean. A worker that is killed needs none
    of this: its slot is taken over when the lease runs out.

    `step` handles every fault of a trial, a trainer, a device or this code at one slot. It lets through:

    Raises:
        StoreUnreachable: the store did not answer for `wait_limit_s`, and no stop was requested; also when the worker
            is made.
        HpsearchError: the study was deleted.
    """

    def __init__(
        self,
        study: OpenStudy,
        store: Store,
        worker_id: str,
        start_trainer: StartTrainer,
        stop: StopFlag,
        clock: Callable[[], float] = time.monotonic,
        wait_limit_s: float = WAIT_LIMIT_S,
        device_uuid: str | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.study = study
        self.worker_id = worker_id
        self._store = store
        self._stop = stop
        self._clock = clock
        self._device_uuid = device_uuid
        self._relay = Relay(store, stop, wait_limit_s)
        self._search = self._relay.ask(lambda: Search(store, study.spec))
        self._warm = WarmTrainer(start_trainer, study.spec.searched.trials_per_process)
        self._signs = Signs(store, worker_id, self._relay, stop, self._look, clock)
        self._mirror = mirror or Mirror(study.storage)
        self._endings = Endings(study, store, self._search, self._relay, worker_id, self._mirror)

    def run(self) -> Step:
        """Works until the study is finished or a stop is requested; always leaves cleanly."""
        study_id = self.study.study_id
        try:
            self._relay.ask(lambda: self._store.workers.register(self.worker_id, study_id, STARTING, self._device_uuid))
            while (step := self.step()) not in _LAST:
                if step is Step.NOTHING_FREE:
                    self._signs.give(Activity(doing="waiting for other workers' trials"))
                    self._stop.wait(self._signs.every_s / 2)
            return step
        except StoreUnreachable as error:
            if not self._stop.requested:
                raise
            log.warning("%s; another worker continues its trial once the lease has run out", error)
            return Step.STOPPED
        finally:
            self._warm.end()
            leaving = self._relay.offer(lambda: self._store.workers.leave(self.worker_id))
            self._relay.is_answered(leaving)
            self._relay.close()
            self._mirror.close(_MOMENT_S if self._stop.urgent else PATIENCE_S)

    def step(self) -> Step:
        """Claim → run → finish, once."""
        if self._stop.requested:
            return Step.STOPPED
        if limit := self._relay.ask(self._limit):
            log.warning("no more trials begin: %s", limit)
            return Step.LIMIT
        lease = self._relay.ask(self._claim)
        if lease is None:
            return self._relay.ask(self._why_none)
        self._signs.renewed(lease)
        try:
            return self._run_slot(lease)
        except LeaseLost as lost:
            log.warning("%s: this worker's attempt is discarded", lost)
        self._warm.end()
        return Step.WORKED

    def _run_slot(self, lease: Lease) -> Step:
        """Runs the lease's trial and always leaves its slot consistent. Raises LeaseLost at any time."""
        try:
            return self._run(lease)
        except TrialEnded as ended:
            self._warm.end()
            log.warning("%s; its slot is closed", ended)
            self._relay.ask(lambda: self._store.leases.close(lease))
            return Step.WORKED
        except (LeaseLost, StoreUnreachable):
            raise
        except Exception:
            self._warm.end()
            return self._endings.stumble(lease)

    def _limit(self) -> str | None:
        limits = self.study.spec.searched.limits
        if limits == type(limits)():
            return None
        return reached(limits, Usage.of(self._store.workers.of(self.study.study_id)), datetime.now(UTC))

    def _claim(self) -> Lease | None:
        return self._store.leases.claim(
            self.study.study_id, self.worker_id, LEASE_S, DEAD_WORKERS, self._endings.suspects, self.study.uid
        )

    def _why_none(self) -> Step:
        if self._store.leases.slots(self.study.study_id).all_finished:
            return Step.FINISHED
        reason = self._store.studies.why_paused(self.study.study_id)
        if reason is not None:
            log.warning("the study is paused: %s", reason)
            return Step.PAUSED
        return Step.NOTHING_FREE

    def _run(self, lease: Lease) -> Step:
        trial = self._relay.ask(lambda: self._search.start(lease))
        if lease.result is not None:
            return self._endings.tell(trial, TrialResult.model_validate_json(lease.result))
        if trial.is_ended:
            raise TrialEnded(f"trial {trial.number} was ended by another program")
        if not self._has_fetched(trial):
            return self._endings.give_back(trial)
        trial = self._after_the_last(trial)
        if (found := self._left_behind(trial)) is not None:
            return self._endings.tell(trial, found)
        if trial.lease.strikes >= MAX_STRIKES:
            return self._endings.tell(trial, self._given_up(trial))
        attempt = Attempt(trial, self._search, self._relay, self._signs, self._warm.look)
        try:
            result = self._train(attempt)
            if result.outcome in (Outcome.STOPPED, Outcome.FAILED):
                self._save(attempt)
            return self._endings.judge(trial, result)
        except Interrupted:
            self._warm.end()
            self._save(attempt)
            return self._endings.give_back(trial)
        except TrainerDied as died:
            self._warm.end()
            self._save(attempt)
            return self._bury(attempt, died)

    def _has_fetched(self, trial: ActiveTrial) -> bool:
        """Fetches what earlier attempts saved on machines that share no folder with this one; False: a stop came
        first.
        """
        lease = trial.lease
        if lease.attempt == 1:
            return True
        doing = Activity(doing="fetching earlier attempts' checkpoints", trial=trial.number)
        fetched = self._mirror.fetch_before(self._folder(trial), lease.attempt)
        if waited(fetched, FETCH_S, lambda: self._signs.give(doing, lease), lambda: self._stop.requested):
            return True
        if not self._stop.requested:
            log.warning(
                "earlier attempts' checkpoints can't be fetched (%s); trial %d starts without them",
                self._mirror.url,
                trial.number,
            )
        return not self._stop.requested

    def _save(self, attempt: Attempt) -> None:
        """Waits until other machines can continue from what the attempt saved."""
        settled = self._mirror.settle()
        if not waited(settled, PATIENCE_S, attempt.tick, lambda: self._stop.urgent):
            log.warning("%s does not have the last checkpoint of trial %d", self._mirror.url, attempt.trial.number)

    def _after_the_last(self, trial: ActiveTrial) -> ActiveTrial:
        """The trial, with a strike where its last worker was killed during training without progress.

        A dead worker of this machine that left no folder had not trained; for a silent one elsewhere this is unknown,
        since its folder may be elsewhere too.
        """
        lease = trial.lease
        if lease.handover not in (Handover.HOLDER_DEAD, Handover.EXPIRED):
            return trial
        folders = self._folder(trial)
        is_elsewhere = folders.last is None and lease.progress > 0  # no shared storage
        if not is_elsewhere and not folders.attempt(lease.attempt - 1).journal.exists():
            return trial
        step = max((folder.last_step() for folder in folders.before(lease.attempt)), default=0)
        lease = struck(lease, f"attempt {lease.attempt - 1}: {lease.handover}", step)
        self._relay.ask(lambda: self._store.leases.note(lease))
        return replace(trial, lease=lease)

    def _left_behind(self, trial: ActiveTrial) -> TrialResult | None:
        """The result that the last attempt's trainer wrote but that never reached the store. Only of a holder that is
        certainly dead: a paused one's trainer may still be writing. A failure of its own device is no result on this
        one.
        """
        if trial.lease.handover is not Handover.HOLDER_DEAD:
            return None
        last = self._folder(trial).attempt(trial.lease.attempt - 1)
        result = last.result_if_whole()
        if result is None or result.outcome is Outcome.STOPPED or is_machines(result):
            return None
        return _whole(last, result)

    def _given_up(self, trial: ActiveTrial) -> TrialResult:
        result = given_up(trial.lease)
        last = self._folder(trial).last
        return result.model_copy(update={"reports": last.read_journal() if last else []})

    def _train(self, attempt: Attempt) -> TrialResult:
        trial = attempt.trial
        number = trial.lease.attempt
        values = ", ".join(f"{knob} {value}" for knob, value in trial.values.items())
        log.info("trial %d starts%s: %s", trial.number, f", attempt {number}" if number > 1 else "", values)
        folders = self._folder(trial)
        folder = folders.begin(number)
        earlier = [before.path for before in folders.before(number)]
        self._note_a_loss(trial, folders)
        fits = self._relay.ask(self._search.fits)
        config = self.study.trial_config(trial.number, trial.values, earlier).model_copy(update={"fits": fits})
        folder.prepare(config)
        trainer = self._warm.for_(config)
        self._mirror.follow(folder)
        done = follow(trainer, folder, self._stop, attempt, self.study.spec.silence, self._clock)
        return self._warm.after(_whole(folder, folder.read(TrialResult)), config, is_clean=done.clean)

    def _note_a_loss(self, trial: ActiveTrial, folders: TrialFolder) -> None:
        """Notes why a trial starts over: the earlier attempt's files are on another machine."""
        lease, number = trial.lease, trial.lease.attempt
        before = folders.before(number)
        here = max((folder.last_step() for folder in before), default=0)
        if here >= lease.progress or folders.attempt(number - 1).path.exists():
            return
        host = self._relay.ask(lambda: self._store.workers.last_host(self.study.study_id, trial.number, self.worker_id))
        how = f"continues from {before[0].path.name}" if before else "started over"
        why = f"{self._mirror.url} does not have it" if self._mirror.url else "HPSEARCH_STORAGE is not shared"
        message = (
            f"attempt {number} {how}: the folder of attempt {number - 1} is on {host or 'another machine'}, and {why}"
        )
        log.warning("trial %d, %s", trial.number, message)
        self._relay.ask(lambda: self._search.note(trial, STARTED_OVER, message))

    def _bury(self, attempt: Attempt, died: TrainerDied) -> Step:
        """A trainer that died. It may have written its result before that."""
        folder = self._folder(attempt.trial).attempt(attempt.trial.lease.attempt)
        if (result := folder.result_if_whole()) is not None:
            return self._endings.judge(attempt.trial, _whole(folder, result))
        step = max(folder.last_step(), attempt.step)
        return self._endings.bury(attempt.trial, died, began=attempt.began, step=step)

    def _folder(self, trial: ActiveTrial) -> TrialFolder:
        return self.study.storage.trial(self.study.uid, trial.number)

    def _look(self, activity: Activity) -> tuple[Activity, str]:
        pid = self._warm.pid
        if not pid:
            return activity, self._warm.device
        seen = {"host_bytes": host_bytes(pid), "device_bytes": device_bytes(pid) or 0, "device_errors": device_errors()}
        return activity.model_copy(update=seen), self._warm.device


def _whole(folder: JobFolder, result: TrialResult) -> TrialResult:
    """A training that ended in an exception returns no reports; those it made are in its journal."""
    return result if result.reports else result.model_copy(update={"reports": folder.read_journal()})
