"""Launches: which jobs of which engine belong to a study, so that anyone who has the store can ask for their state."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Engine, insert, select

from hpsearch.store.engine import database_now
from hpsearch.store.tables import launches
from hpsearch.trial import Record


class LaunchedJob(Record):
    """A job by its engine's id, and its worker's log file, as the host of the launch sees it."""

    job_id: str
    log: str | None = None


@dataclass(frozen=True)
class StoredLaunch:
    """`options` are the engine's, as given; `host` is where `hpsearch launch` ran."""

    launch_id: int
    engine: str
    options: Mapping[str, Any]
    jobs: Sequence[LaunchedJob]
    host: str
    started_at: float


class Launches:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, study_id: int, engine: str, options: Mapping[str, Any], jobs: Sequence[LaunchedJob]) -> None:
        with self._engine.begin() as connection:
            values = {
                "study_id": study_id,
                "engine": engine,
                "options": json.dumps(dict(options)),
                "jobs": _JOBS.dump_json(list(jobs)).decode(),
                "host": socket.gethostname(),
                "started_at": database_now(connection),
            }
            connection.execute(insert(launches).values(values))

    def of(self, study_id: int) -> list[StoredLaunch]:
        """The oldest first."""
        chosen = select(launches).where(launches.c.study_id == study_id).order_by(launches.c.launch_id)
        with self._engine.begin() as connection:
            rows = connection.execute(chosen).all()
        return [
            StoredLaunch(
                launch_id=row.launch_id,
                engine=row.engine,
                options=json.loads(row.options),
                jobs=_JOBS.validate_json(row.jobs),
                host=row.host,
                started_at=row.started_at,
            )
            for row in rows
        ]


_JOBS: TypeAdapter[list[LaunchedJob]] = TypeAdapter(list[LaunchedJob])
