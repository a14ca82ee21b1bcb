"""Workers: who is there, when they last gave a sign of life, and what they do now."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, insert, select, update

from hpsearch.store.engine import database_now
from hpsearch.store.tables import workers
from hpsearch.trial import Record


class Activity(Record):
    """What a worker does now, for whoever watches."""

    doing: str
    trial: int | None = None
    done: int = 0
    total: int = 0
    loss: float | None = None
    host_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class StoredWorker:
    worker_id: str
    device: str
    started_at: float
    seconds_since_beat: float
    activity: Activity
    gone: bool


class Workers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, worker_id: str, study_id: int, device: str) -> None:
        with self._engine.begin() as connection:
            now = database_now(connection)
            values = {
                "worker_id": worker_id,
                "study_id": study_id,
                "device": device,
                "started_at": now,
                "beat_at": now,
                "activity": Activity(doing="starting").model_dump_json(),
                "gone": False,
            }
            connection.execute(insert(workers).values(values))

    def beat(self, worker_id: str, activity: Activity, device: str) -> None:
        with self._engine.begin() as connection:
            values = {
                "beat_at": database_now(connection),
                "activity": activity.model_dump_json(),
                "device": device,
            }
            connection.execute(update(workers).where(workers.c.worker_id == worker_id).values(values))

    def leave(self, worker_id: str) -> None:
        with self._engine.begin() as connection:
            values = {"beat_at": database_now(connection), "gone": True}
            connection.execute(update(workers).where(workers.c.worker_id == worker_id).values(values))

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
                seconds_since_beat=now - row.beat_at,
                activity=Activity.model_validate_json(row.activity),
                gone=row.gone,
            )
            for row in rows
        ]


def own_worker_id() -> str:
    return worker_id_of(os.getpid())


def worker_id_of(pid: int) -> str:
    """`host:pid:start` of a process of this host, unique for ever; the start tells a pid that was given out again."""
    return f"{socket.gethostname()}:{pid}:{_state_and_start(pid)[1]}@{_place()}"


def is_dead(worker_id: str) -> bool:
    """Whether a worker is certainly gone. Where its pid says nothing here, only the lease's end tells."""
    _host, pid, start_and_place = worker_id.rsplit(":", 2)
    start, _, place = start_and_place.partition("@")
    if place != _place():
        return False
    try:
        os.kill(int(pid), 0)
        state, started = _state_and_start(int(pid))
    except PermissionError:  # another user's process
        return False
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state in _ZOMBIE_OR_DEAD or started != start


_ZOMBIE_OR_DEAD = "ZXx"


def _state_and_start(pid: int) -> tuple[str, str]:
    """A process's state and when it started, in clock ticks since boot (proc_pid_stat(5)).

    Not psutil's `create_time()`: it is worked out from the time of boot, which moves when the clock is set.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], fields[19]


def _place() -> str:
    """Where a pid means one process: this host since its boot, and on it this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().partition("-")[0]
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino:x}"
