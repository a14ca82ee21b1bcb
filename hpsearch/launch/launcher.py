"""The interface of a launcher: it submits jobs to an engine, says how they are, and ends them. It schedules nothing.

An engine is what runs processes on machines: this machine, SLURM, a Ray cluster. A job is one of its processes, or its
place in a queue, and keeps one worker running (`hpsearch worker --keep`). The search needs no launcher: running that
command by hand, or in a container, starts a worker as well.

What such a process knows of its engine: the signal `SAVE` (launch/keep.py) asks it to save and leave, and may be
repeated, while a second SIGTERM means to leave without saving; `$HPSEARCH_JOB` is the id of its job, which `status`
shows (by default the process's own id, store/workers.py).

One file holds a launcher, one line of `launch/engines.py` names it, and one contract test
(tests/contract/test_launchers.py) runs over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol

from hpsearch.spec.base import Spec
from hpsearch.store import LaunchedJob, StoredLaunch


@dataclass(frozen=True)
class Order:
    """Workers to start.

    `arguments` are those of `hpsearch worker`, the study file first, with absolute paths. `environment` is what a
    worker needs besides its machine's environment, which it overrides; it holds secrets, so it goes into no command
    line and no file that others can read. `folder` is the workers' working directory, `logs` the folder of their
    output, one file for a job.
    """

    study: str
    num_workers: int
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    logs: Path


class JobState(StrEnum):
    PENDING = "pending"
    """It waits to be started by its engine."""
    RUNNING = "running"
    """It runs a worker."""
    REQUEUED = "requeued"
    """Pending again after it had run: any worker may take its trial."""
    GONE = "gone"
    """It has ended and will not start again."""
    UNKNOWN = "unknown"
    """The engine can't tell from here."""


@dataclass(frozen=True)
class JobView:
    """A job as its engine reports it.

    `job_id`: the one that `start` returned. `reason`: why it is not running, the engine's own or the last line of its
    log: always of a job that is gone after a failure. `node`: the machine of a job that runs. `log`: as `start` said.
    """

    job_id: str
    state: JobState
    reason: str = ""
    node: str = ""
    log: str | None = None

    @property
    def is_there(self) -> bool:
        return self.state in (JobState.PENDING, JobState.RUNNING, JobState.REQUEUED)


class Launcher(Protocol):
    """What an engine must implement. It is made from its `Options`, which a person writes and the store keeps.

    `reaches_other_machines`: its workers need a store, and a storage folder, that other machines can reach.
    """

    Options: ClassVar[type[Spec]]
    reaches_other_machines: ClassVar[bool]

    def check(self, order: Order) -> None:
        """Raises HpsearchError, with what to do, where the engine would refuse the order: it can't be reached, a
        partition doesn't exist, a permission is missing. Starts nothing.
        """

    def plan(self, order: Order) -> str:
        """What `start` would submit, for a person to read; without secrets."""

    def start(self, order: Order) -> list[LaunchedJob]:
        """Submits all of the order's jobs, or none: where one can't be started, those before it are ended, and
        HpsearchError has the engine's own message. Doesn't wait until they run. The engine restarts a job that is
        preempted or whose machine is lost.

        Each returned id is what its worker has as `$HPSEARCH_JOB`; each log is a file of its own in the order's `logs`.
        """

    def jobs(self, launch: StoredLaunch) -> list[JobView]:
        """Every job of a launch, in its order, also long after its end; UNKNOWN where the engine can't tell, as of a
        process of another machine. Raises HpsearchError where the engine doesn't answer within seconds.
        """

    def stop(self, launch: StoredLaunch, *, now: bool) -> None:
        """Ends all jobs of a launch without waiting: pending jobs are cancelled; running ones are asked to save a
        checkpoint and get minutes for it, however often this is called, or with `now` are killed with all that they
        started. None of them is restarted. For a job that is gone it does nothing. Raises HpsearchError as `jobs`.
        """
