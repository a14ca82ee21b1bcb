"""What `hpsearch status --json` says and `/metrics` counts: one document, the same for every program that reads it.

`version` changes when a field goes away or means something else; fields that are added don't change it. Moments are
seconds since 1970 (UTC), lengths of time are seconds, memory is bytes. A number that is NaN or infinite is null, as
JSON has neither: what diverged has the outcome `diverged`. `docs/how-to/watching.md` explains each field.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hpsearch.search.view import StudyView, TrialView, read_view
from hpsearch.spec.evaluation import is_better
from hpsearch.store import Store, StoredStudy, StoredWorker
from hpsearch.store.workers import host_and_pid
from hpsearch.trial import GIB

OUTCOMES = ("complete", "pruned", "diverged", "out of memory", "failed", "running", "waiting")
_HOUR_S = 3600


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Value = Annotated[bool | int | float | str | list[Any] | None, BeforeValidator(_finite)]


class Told(BaseModel):
    """A part of the document."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectiveStatus(Told):
    name: str
    direction: Literal["minimize", "maximize"]


class ReportStatus(Told):
    report: int = Field(description="from 1")
    value: Number = Field(description="of the first objective")


class TrialStatus(Told):
    number: int
    outcome: str = Field(description="one of the names in `trials_by_outcome`")
    value: Number = Field(description="of the first objective: what a complete trial came to, else its last report's")
    values: dict[str, Number] = Field(description="of every objective, by its name; empty where it is not complete")
    fits_memory: bool = Field(description="whether it keeps to budget.memory_gib")
    params: dict[str, Value]
    reports: list[ReportStatus]
    attempts: int | None = Field(description="null: it has not ended, or was run by no worker")
    seconds: Number = Field(description="from its beginning to its end; null before it")
    peak_device_bytes: int | None = Field(description="to the nearest thousandth of a GiB")
    peak_host_bytes: int | None = Field(description="the same, of the host's memory")
    ledger_closes: bool | None = Field(description="whether it gave all of its memory back")
    reason: str | None = Field(description="why it ended as it did, where there is something to say")


class WorkerStatus(Told):
    name: str = Field(description="unique for ever")
    host: str
    process: int
    device: str
    device_uuid: str | None
    is_live: bool = Field(description="it gave a sign of life within the last minute and has not left")
    started_at_seconds: float
    beat_at_seconds: float
    seconds_since_beat: float
    doing: str
    trial: int | None
    done: int = Field(description="of what it does, out of `total`")
    total: int
    loss: Number
    device_bytes: int
    host_bytes: int
    aside: str | None = Field(description="why its device takes no more trials")
    device_errors: list[str] = Field(description="cards of its machine that the driver refuses")


class UsageStatus(Told):
    """Since the study began."""

    seconds: float = Field(description="with any worker there")
    device_seconds: float = Field(description="of all workers together")
    cost: float | None = Field(description="in the currency of search.limits.price_per_device_hour")


class StudyStatus(Told):
    name: str
    description: str | None
    task: str
    base: str
    created_at_seconds: float
    objectives: list[ObjectiveStatus]
    state: Literal["finished", "paused", "limit", "working", "idle"] = Field(
        description="the first that applies; working: a worker is there"
    )
    paused: str | None = Field(description="why no trial begins, until hpsearch resume")
    limit: str | None = Field(description="which of search.limits it has come to")
    slots_wanted: int
    slots_finished: int
    slots_leased: int
    trials_by_outcome: dict[str, int] = Field(description="every outcome, also those that no trial has")
    best: TrialStatus | None
    seconds_left: Number = Field(description="an estimate; null where there is nothing to estimate from")
    usage: UsageStatus
    workers: list[WorkerStatus] = Field(description="those that are live, and those whose device is set aside")
    trials: list[TrialStatus] | None = Field(description="null where no study was named")


class UnreadableStatus(Told):
    name: str
    reason: str


class StatusDocument(Told):
    version: Literal[1] = 1
    read_at_seconds: float
    store: str = Field(description="without secrets")
    studies: list[StudyStatus]
    unreadable: list[UnreadableStatus] = Field([], description="studies that this hpsearch can't read, and why")

    def to_json(self, *, indent: int | None = None) -> str:
        """Plain ASCII: no reader needs to know an encoding, and nothing in it is a terminal's to obey."""
        return json.dumps(self.model_dump(), indent=indent, allow_nan=False)


def read_status(store: Store, study: StoredStudy | None = None) -> StatusDocument:
    """Of one study with its trials, or of all without.

    Raises:
        StoreUnreachable: the database did not answer.
    """
    if study is not None:
        return _document(store, [study_status(read_view(store, study), with_trials=True)])
    with store.reaching():
        known, unreadable = store.studies.all(manifests=False), store.studies.unreadable()
    told = [UnreadableStatus(name=each.name, reason=each.reason) for each in unreadable]
    return _document(store, study_statuses(store, known), told)


def study_statuses(store: Store, studies: list[StoredStudy]) -> list[StudyStatus]:
    return [study_status(read_view(store, study)) for study in studies]


def no_status(store: str) -> StatusDocument:
    """Of a store that is not there yet."""
    return StatusDocument(read_at_seconds=time.time(), store=store, studies=[])


def _document(
    store: Store, studies: list[StudyStatus], unreadable: list[UnreadableStatus] | None = None
) -> StatusDocument:
    return StatusDocument(read_at_seconds=time.time(), store=store.name, studies=studies, unreadable=unreadable or [])


def study_status(view: StudyView, *, with_trials: bool = False) -> StudyStatus:
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
        objectives=[ObjectiveStatus(name=name, direction=_direction(name)) for name in spec.objectives],
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
        trials=[_trial(view, trial) for trial in view.trials] if with_trials else None,
    )


def _direction(objective: str) -> Literal["minimize", "maximize"]:
    return "maximize" if is_better(objective, 1.0, 0.0) else "minimize"


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
        values=dict(zip(view.study.spec.objectives, trial.values, strict=False)),
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
    """A trial's attributes are anybody's to set, with Optuna's own tools: what is of another kind is not ours."""
    fact = trial.facts.get(name)
    return fact if isinstance(fact, kind) else None


def _as_written(value: Any) -> Any:
    """A choice that is a list is kept as its JSON text (`search.space`)."""
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
