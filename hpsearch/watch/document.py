"""What `hpsearch status --json` says and `/metrics` counts: one document, the same for every program that reads it.

`version` changes when a field goes away or means something else; fields that are added don't change it. Moments are
seconds since 1970 (UTC), durations are seconds, memory is bytes. A number that is NaN or infinite is null, as JSON has
neither: a trial that diverged has the outcome `diverged`. `docs/how-to/watching.md` explains each field.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

OUTCOMES = ("complete", "pruned", "diverged", "out of memory", "failed", "running", "waiting")

STATES = {
    "finished": "All of its trials have ended.",
    "paused": "No trial starts until `hpsearch resume`: somebody paused it, or it paused itself, with a reason.",
    "limit": "It has reached one of `search.limits`; no trial starts.",
    "working": "At least one worker is running.",
    "idle": "Trials are left, and no worker is running: `hpsearch run` continues.",
}
"""Of a study: the first that applies."""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Value = Annotated[bool | int | float | str | list[Any] | None, BeforeValidator(_finite)]


class Told(BaseModel):
    """Base class of the document's parts."""

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
    value: Number = Field(description="of the first objective: a complete trial's value, else the last report's")
    values: dict[str, Number] = Field(description="of every objective, by its name; empty where it is not complete")
    fits_memory: bool = Field(description="whether it keeps to budget.memory_gib")
    params: dict[str, Value]
    reports: list[ReportStatus]
    attempts: int | None = Field(description="null: it has not ended, or was run by no worker")
    seconds: Number = Field(
        description="of its attempts together, without the pauses between them; null before it has ended"
    )
    peak_device_bytes: int | None = Field(description="to the nearest thousandth of a GiB")
    peak_host_bytes: int | None = Field(description="the same, of the host's memory")
    ledger_closes: bool | None = Field(description="whether it freed all of its memory")
    reason: str | None = Field(description="why it ended as it did, where there is something to say")


class WorkerStatus(Told):
    name: str = Field(description="unique for ever")
    host: str
    process: int
    job: str | None = Field(description="its id in the engine that runs it")
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


class JobStatus(Told):
    """A launched worker's job, as its engine reports it."""

    engine: str
    job: str = Field(description="the engine's own id")
    state: Literal["pending", "running", "requeued", "gone", "unknown"]
    reason: str = Field(description="the engine's own, or why it could not be asked")
    node: str
    launched_at_seconds: float
    log: str | None = Field(description="as the machine sees it where hpsearch launch ran")


class UsageStatus(Told):
    """Since the study began."""

    seconds: float = Field(description="with at least one worker")
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
        description="the first that applies; working: a worker is running"
    )
    paused: str | None = Field(description="why no trial starts, until hpsearch resume")
    limit: str | None = Field(description="which of search.limits it has reached")
    slots_wanted: int
    slots_finished: int
    slots_leased: int
    trials_by_outcome: dict[str, int] = Field(description="every outcome, also those that no trial has")
    best: TrialStatus | None
    seconds_left: Number = Field(description="an estimate; null where there is nothing to estimate from")
    usage: UsageStatus
    workers: list[WorkerStatus] = Field(description="those that are live, and those whose device is set aside")
    jobs: list[JobStatus] | None = Field(description="of every hpsearch launch; null where engines aren't asked")
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
        """Plain ASCII: readers need no encoding, and no byte acts as a terminal control code."""
        return json.dumps(self.model_dump(), indent=indent, allow_nan=False)
