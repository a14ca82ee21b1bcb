"""Workers: which ones exist, when each last gave a heartbeat, and what it does now."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field
from sqlalchemy import Engine, insert, select, update

from hpsearch.store.engine import database_now
from hpsearch.store.fence import Lease
from hpsearch.store.leases import renew
from hpsearch.store.orders import Orders, orders_of
from hpsearch.store.tables import studies, workers
from hpsearch.trial import Record

SECONDS_UNTIL_SILENT = 60
JOB_VARIABLE = "HPSEARCH_JOB"


class Activity(Record):
    """What a worker does now, for `status` and the live screen."""

    doing: str
    trial: int | None = None
    done: int = 0
    total: int = 0
    loss: float | None = None
    host_bytes: int = 0
    device_bytes: int = 0
    device_errors: list[str] = Field([], description="cards of its machine that the driver refuses, with the reason")


@dataclass(frozen=True)
class StoredWorker:
    worker_id: str
    device: str
    started_at: float
    beat_at: float
    seconds_since_beat: float
    activity: Activity
    gone: bool
    device_uuid: str | None = None
    aside: str | None = None
    """Why its device takes no more trials, if so."""
    job: str | None = None
    """The id of its job in the engine that runs it."""

    @property
    def seconds(self) -> float:
        """Seconds between its start and its last sign of life."""
        return self.beat_at - self.started_at


class Workers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, worker_id: str, study_id: int, device: str, device_uuid: str | None = None) -> None:
        """Can be repeated, as the answer to an earlier call may have been lost. `$HPSEARCH_JOB` is its job's id."""
        with self._engine.begin() as connection:
            if connection.scalar(select(workers.c.worker_id).where(workers.c.worker_id == worker_id)):
                return
            now = database_now(connection)
            values = {
                "worker_id": worker_id,
                "study_id": study_id,
                "device": device,
                "device_uuid": device_uuid,
                "job": os.environ.get(JOB_VARIABLE),
                "started_at": now,
                "beat_at": now,
                "activity": Activity(doing="starting").model_dump_json(),
                "gone": False,
            }
            connection.execute(insert(workers).values(values))

    def give_sign(
        self,
        worker_id: str,
        activity: Activity,
        device: str,
        lease: Lease | None = None,
        duration_s: float = 0.0,
        step: int = 0,
    ) -> Orders:
        """A heartbeat: stores what the worker does, renews its lease if there is one, and returns the requests to it.

        Raises LeaseLost; then nothing is written.
        """
        with self._engine.begin() as connection:
            now = database_now(connection)
            if lease is not None:
                renew(connection, lease, now, duration_s, step)
            values = {"beat_at": now, "activity": activity.model_dump_json(), "device": device}
            connection.execute(update(workers).where(workers.c.worker_id == worker_id).values(values))
            return orders_of(connection, worker_id)

    def set_aside(self, worker_id: str, reason: str) -> bool:
        """Notes why the worker's device takes no more trials; returns whether no other worker of the study has one that
        does.

        Workers without a sign of life for a minute don't count.
        """
        with self._engine.begin() as connection:
            own = workers.c.worker_id == worker_id
            of_worker = studies.c.study_id == select(workers.c.study_id).where(own).scalar_subquery()
            # Must come first: MySQL's later reads show the moment of the first plain read.
            study_id = connection.scalar(select(studies.c.study_id).where(of_worker).with_for_update())
            connection.execute(update(workers).where(own).values(aside=reason))
            others = select(workers.c.worker_id).where(
                workers.c.study_id == study_id,
                workers.c.gone.is_(False),
                workers.c.aside.is_(None),
                workers.c.beat_at > database_now(connection) - SECONDS_UNTIL_SILENT,
            )
            return connection.execute(others).first() is None

    def leave(self, worker_id: str) -> None:
        with self._engine.begin() as connection:
            values = {"beat_at": database_now(connection), "gone": True}
            connection.execute(update(workers).where(workers.c.worker_id == worker_id).values(values))

    def last_host(self, study_id: int, trial: int, but: str) -> str | None:
        """The host of the worker that last had a trial, according to its last sign of life."""
        at = [each for each in self.of(study_id) if each.activity.trial == trial and each.worker_id != but]
        last = max(at, key=lambda each: each.beat_at, default=None)
        return last.worker_id.rsplit(":", 2)[0] if last else None

    def of(self, study_id: int) -> list[StoredWorker]:
        chosen = select(workers).where(workers.c.study_id == study_id).order_by(workers.c.started_at)
        with self._engine.begin() as connection:
            now = database_now(connection)
            rows = connection.execute(chosen).all()
        return [
            StoredWorker(
                worker_id=row.worker_id,
                device=row.device,
                started_at=row.started_at,
                beat_at=row.beat_at,
                seconds_since_beat=now - row.beat_at,
                activity=Activity.model_validate_json(row.activity),
                gone=row.gone,
                device_uuid=row.device_uuid,
                aside=row.aside,
                job=row.job,
            )
            for row in rows
        ]


def own_worker_id() -> str:
    return worker_id_of(os.getpid())


def worker_id_of(pid: int) -> str:
    """`host:pid:start` of a process of this host, unique for ever; the start distinguishes a reused pid."""
    return f"{socket.gethostname()}:{pid}:{_state_and_start(pid)[1]}@{_place()}"


def is_of_this_machine(worker_id: str) -> bool:
    """Whether its pid means a process on this machine."""
    return worker_id.rpartition("@")[2] == _place()


def host_and_pid(worker_id: str) -> tuple[str, int]:
    host, pid, _start_and_place = worker_id.rsplit(":", 2)
    return host, int(pid)


def is_dead(worker_id: str) -> bool:
    """Whether a worker is certainly gone. If its pid means nothing here, only the lease's expiry tells."""
    _host, pid, start_and_place = worker_id.rsplit(":", 2)
    start = start_and_place.partition("@")[0]
    if not is_of_this_machine(worker_id):
        return False
    is_others = False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        is_others = True
    except ProcessLookupError:
        return True
    try:
        state, started = _state_and_start(int(pid))
    except (ProcessLookupError, FileNotFoundError):
        return not is_others  # processes of other users may be hidden (proc(5), hidepid)
    return state in _ZOMBIE_OR_DEAD or started != start


def seconds_alive(pid: int) -> float:
    """Since the start of a process of this host."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_state_and_start(pid)[1]) / os.sysconf("SC_CLK_TCK")


class _DeadWorkers(Container[str]):
    def __contains__(self, worker_id: object) -> bool:
        return is_dead(str(worker_id))


DEAD_WORKERS = _DeadWorkers()
"""Workers for which `is_dead` is certain: looked up for each holder of a lease, in the transaction that claims."""

_ZOMBIE_OR_DEAD = "ZXx"


def _state_and_start(pid: int) -> tuple[str, str]:
    """A process's state and its start, in clock ticks since boot (proc_pid_stat(5)).

    Not psutil's `create_time()`: it is derived from the time of boot, which moves when the clock is set.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], fields[19]


@cache
def _place() -> str:
    """Where a pid means one process: this host since its boot, and on it this container. It never changes for a
    process.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().partition("-")[0]
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino:x}"
