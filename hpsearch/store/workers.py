"""Workers: who is there, when they last gave a sign of life, and what they do now."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil
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
    """`host:pid:start`, unique for ever; the start time tells a recycled pid."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def is_dead(worker_id: str) -> bool:
    """Whether a worker of this host is certainly gone. Of other hosts only the lease's end tells."""
    host, pid, started = worker_id.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" != started
    except psutil.NoSuchProcess:
        return True
