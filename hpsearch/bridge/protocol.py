"""The bridge: JSON lines between a worker and its trainer, on a pair of file descriptors of their own.

    worker → trainer   Run(folder) … then Continue or Prune after each report; Stop at any time
    trainer → worker   Ready … then Phase and Progress as they come, Began, Report (and waits), Done

Library noise on stdout can't break it, and it carries no secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from hpsearch.errors import BrokenMessage, cut
from hpsearch.trial import Record, Report


class Run(Record):
    """Do the job in this folder."""

    kind: Literal["run"] = "run"
    folder: Path


class Continue(Record):
    """The answer to a report: continue."""

    kind: Literal["continue"] = "continue"


class Prune(Record):
    """The answer to a report: the trial ends here."""

    kind: Literal["prune"] = "prune"


class Stop(Record):
    """Save a checkpoint as soon as the current step is done, then end the job."""

    kind: Literal["stop"] = "stop"


class Ready(Record):
    """The libraries are imported; the trainer accepts jobs."""

    kind: Literal["ready"] = "ready"
    device: str


class Phase(Record):
    """What the trainer does outside of training steps, with a count where there is one."""

    kind: Literal["phase"] = "phase"
    name: str
    done: int = 0
    total: int = 0


class Began(Record):
    """Training begins, once per job. `reports` were made before the checkpoint it continues from.

    A report made at exactly the checkpoint's step is sent again, as Reported: its answer may have been lost.
    """

    kind: Literal["began"] = "began"
    reports: list[Report] = Field([])


class Progress(Record):
    """A training step. `loss` is the running training loss; None before the first one is known."""

    kind: Literal["progress"] = "progress"
    step: int
    num_steps: int
    loss: float | None = None


class Reported(Record):
    """A validation loss; the trainer waits for Continue or Prune."""

    kind: Literal["report"] = "report"
    step: int
    num_reports: int
    loss: float
    metrics: dict[str, float] = Field({})

    @property
    def report(self) -> Report:
        return Report(step=self.step, loss=self.loss, metrics=self.metrics)


class Done(Record):
    """The job ended and `result.json` is written. `clean`: this process may take another job."""

    kind: Literal["done"] = "done"
    clean: bool


Command = Annotated[Run | Continue | Prune | Stop, Field(discriminator="kind")]
Event = Annotated[Ready | Phase | Began | Progress | Reported | Done, Field(discriminator="kind")]

_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
MessageT = TypeVar("MessageT")


def to_line(message: Record) -> bytes:
    return message.model_dump_json().encode() + b"\n"


def read_command(line: bytes) -> Command:
    """Raises BrokenMessage."""
    return _read(_COMMAND, line)


def read_event(line: bytes) -> Event:
    """Raises BrokenMessage."""
    return _read(_EVENT, line)


def _read(kind: TypeAdapter[MessageT], line: bytes) -> MessageT:
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise BrokenMessage(f"a line of {len(line)} bytes on the bridge is no message: {cut(what, 200)}") from None
