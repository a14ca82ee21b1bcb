"""Reading the status document: from the store, and from the engines that workers were launched on."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, Literal, TypeVar

from hpsearch.launch.launcher import JobState, JobView
from hpsearch.launch.roll import Called, Roll
from hpsearch.search.view import StudyView, TrialView, read_view
from hpsearch.store import Store, StoredStudy, StoredWorker
from hpsearch.store.workers import host_and_pid
from hpsearch.trial import GIB
from hpsearch.watch.document import (
    OUTCOMES,
    JobStatus,
    ObjectiveStatus,
    ReportStatus,
    StatusDocument,
    StudyStatus,
    TrialStatus,
    UnreadableStatus,
    UsageStatus,
    WorkerStatus,
)

_HOUR_S = 3600


def read_status(store: Store, roll: Roll, study: StoredStudy | None = None) -> StatusDocument:
    """One study with its trials, or all studies without.

    Raises:
        StoreUnreachable: the database did not answer.
    """
    if study is not None:
        return _document(store, [_with_jobs(store, roll, study, with_trials=True)])
    with store.reaching():
        known, unreadable = store.studies.all(manifests=False), store.studies.unreadable()
    broken = [UnreadableStatus(name=each.name, reason=each.reason) for each in unreadable]
    return _document(store, [_with_jobs(store, roll, each) for each in known], broken)


def study_statuses(store: Store, studies: list[StoredStudy]) -> list[StudyStatus]:
    """Without their jobs: no engine is asked."""
    return [study_status(read_view(store, study)) for study in studies]


def _with_jobs(store: Store, roll: Roll, study: StoredStudy, *, with_trials: bool = False) -> StudyStatus:
    jobs = [job for called in roll.of(study.study_id) for job in _jobs(called)]
    return study_status(read_view(store, study), jobs, with_trials=with_trials)


def _jobs(called: Called) -> list[JobStatus]:
    views = called.jobs or [
        JobView(job.job_id, JobState.UNKNOWN, called.silence or "", "", job.log) for job in called.launch.jobs
    ]
    return [
        JobStatus(
            engine=called.launch.engine,
            job=view.job_id,
            state=view.state.value,
            reason=view.reason,
            node=view.node,
            launched_at_seconds=called.launch.started_at,
            log=view.log,
        )
        for view in views
    ]


def no_status(store: str) -> StatusDocument:
    """For a store that does not exist yet."""
    return StatusDocument(read_at_seconds=time.time(), store=store, studies=[])


def _document(
    store: Store, studies: list[StudyStatus], unreadable: list[UnreadableStatus] | None = None
) -> StatusDocument:
    return StatusDocument(read_at_seconds=time.time(), store=store.name, studies=studies, unreadable=unreadable or [])


def study_status(view: StudyView, jobs: list[JobStatus] | None = None, *, with_trials: bool = False) -> StudyStatus:
    spec, usage, left = view.study.spec, view.usage, view.seconds_left()
    counts = Counter(trial.outcome for trial in view.trials)
    live = {worker.worker_id for worker in view.live_workers}
    shown = [worker for worker in view.workers if worker.worker_id in live or worker.aside]
    return StudyStatus(
        name=view.study.name,
        description=spec.description,
        task=spec.task,
        base=spec.model.base,
        created_at_seconds=view.study.created_at,
        objectives=[ObjectiveStatus(name=metric.name, direction=metric.direction) for metric in spec.objectives],
        state=_state(view),
        paused=view.study.paused,
        limit=view.reached_limit,
        slots_wanted=view.slots.wanted,
        slots_finished=view.slots.finished,
        slots_leased=view.slots.leased,
        trials_by_outcome=dict.fromkeys(OUTCOMES, 0) | counts,
        best=view.best and _trial(view, view.best),
        seconds_left=None if view.is_finished else left,
        usage=UsageStatus(
            seconds=usage.hours * _HOUR_S,
            device_seconds=usage.device_hours * _HOUR_S,
            cost=usage.cost(spec.searched.limits),
        ),
        workers=[_worker(worker, is_live=worker.worker_id in live) for worker in shown],
        jobs=jobs,
        trials=[_trial(view, trial) for trial in view.trials] if with_trials else None,
    )


def _state(view: StudyView) -> Literal["finished", "paused", "limit", "working", "idle"]:
    if view.is_finished:
        return "finished"
    if view.study.paused is not None:
        return "paused"
    if view.reached_limit:
        return "limit"
    return "working" if view.live_workers else "idle"


def _trial(view: StudyView, trial: TrialView) -> TrialStatus:
    return TrialStatus(
        number=trial.number,
        outcome=trial.outcome,
        value=trial.value,
        values=dict(zip(view.study.spec.objective_names, trial.values, strict=False)),
        fits_memory=trial.is_feasible,
        params={knob: _as_written(value) for knob, value in trial.params.items()},
        reports=[ReportStatus(report=step, value=value) for step, value in trial.reports.items()],
        attempts=_fact(trial, "attempts", int),
        seconds=trial.seconds,
        peak_device_bytes=_bytes(_fact(trial, "ledger.peak_device_gib", float)),
        peak_host_bytes=_bytes(_fact(trial, "ledger.peak_host_gib", float)),
        ledger_closes=_fact(trial, "ledger.closes", bool),
        reason=_fact(trial, "reason", str),
    )


T = TypeVar("T")


def _fact(trial: TrialView, name: str, kind: type[T]) -> T | None:
    """A trial's attributes can be set by anyone, with Optuna's own tools: those of another type are ignored."""
    fact = trial.facts.get(name)
    return fact if isinstance(fact, kind) else None


def _as_written(value: Any) -> Any:
    """A choice that is a list is stored as its JSON text (`search.space`)."""
    if not (isinstance(value, str) and value.startswith("[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * GIB)


def _worker(worker: StoredWorker, *, is_live: bool) -> WorkerStatus:
    doing, (host, process) = worker.activity, host_and_pid(worker.worker_id)
    return WorkerStatus(
        name=worker.worker_id,
        host=host,
        process=process,
        job=worker.job,
        device=worker.device,
        device_uuid=worker.device_uuid,
        is_live=is_live,
        started_at_seconds=worker.started_at,
        beat_at_seconds=worker.beat_at,
        seconds_since_beat=worker.seconds_since_beat,
        doing=doing.doing,
        trial=doing.trial,
        done=doing.done,
        total=doing.total,
        loss=doing.loss,
        device_bytes=doing.device_bytes,
        host_bytes=doing.host_bytes,
        aside=worker.aside,
        device_errors=doing.device_errors,
    )
