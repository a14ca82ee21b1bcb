"""Orders to all workers of a study: pause, resume, stop; and trials that are to be run again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, column, delete, select, table, update

from hpsearch.store.engine import database_now, now_by
from hpsearch.store.memory import forget_what_was_seen
from hpsearch.store.tables import leases, studies, workers

_trials = table("trials", column("trial_id"), column("state"), column("datetime_complete"))
_facts = table("trial_user_attributes", column("trial_id"), column("key"))
_marks = table("trial_system_attributes", column("trial_id"), column("key"))
_CONSTRAINT = "constraints:"
"""Optuna's prefix of constraint attributes (5.0.0, study/_constrained_optimization.py); here the memory that a trial
needs, stored at its end.
"""
_TOLD = ("outcome", "reason", "traceback")


@dataclass(frozen=True)
class Orders:
    """The requests that a worker reads with each heartbeat."""

    stop: bool = False
    stop_now: bool = False


class StudyOrders:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pause(self, study_id: int, reason: str) -> bool:
        """No trial begins until `resume`; running ones continue. False where it is paused already."""
        with self._engine.begin() as connection:
            is_free = (studies.c.study_id == study_id) & studies.c.paused.is_(None)
            return connection.execute(update(studies).where(is_free).values(paused=reason)).rowcount == 1

    def resume(self, study_id: int, num_failures: int) -> str | None:
        """Lets trials begin again; returns why they did not, or None. The failures so far don't pause the study
        again.
        """
        with self._engine.begin() as connection:
            chosen = studies.c.study_id == study_id
            reason = connection.scalar(select(studies.c.paused).where(chosen).with_for_update())
            connection.execute(update(studies).where(chosen).values(paused=None, failures_forgiven=num_failures))
        return reason

    def failures_forgiven(self, study_id: int) -> int:
        with self._engine.begin() as connection:
            return connection.scalar(select(studies.c.failures_forgiven).where(studies.c.study_id == study_id)) or 0

    def stop(self, study_id: int, *, now: bool) -> None:
        """Asks every worker that is alive now to save its trial and leave; `now`: to leave without saving."""
        with self._engine.begin() as connection:
            values = {"stop_asked_at": database_now(connection), "stop_now": now}
            connection.execute(update(studies).where(studies.c.study_id == study_id).values(values))

    def of(self, worker_id: str) -> Orders:
        """The requests to a worker. Those older than the worker are not for it."""
        with self._engine.begin() as connection:
            return orders_of(connection, worker_id)

    def since(self, study_id: int, seconds: float) -> Orders:
        """The request of the last `seconds` to all workers."""
        with self._engine.begin() as connection:
            recently = studies.c.stop_asked_at > now_by(connection) - seconds
            return _read(connection, select(studies.c.stop_now).where(studies.c.study_id == study_id, recently))

    def reopen(self, study_id: int, trial_ids: Collection[int]) -> list[int]:
        """Makes finished trials run again under their own numbers; their results are deleted.

        Returns those that were reopened: not those that a worker has at this moment. Optuna can't reopen a finished
        trial, so its row is changed here: a trial stays one Optuna trial through all of its attempts. Workers read the
        study again; Optuna's own processes that have cached the finished trial may show it so until they restart
        (optuna/storages/_cached_storage.py).
        """
        with self._engine.begin() as connection:
            connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())
            reopened = [trial_id for trial_id in trial_ids if _reopen(connection, study_id, trial_id)]
            if reopened:
                forget_what_was_seen(connection, study_id)
        return reopened


def orders_of(connection: Connection, worker_id: str) -> Orders:
    """As `StudyOrders.of`."""
    asked = (
        select(studies.c.stop_now)
        .join(workers, workers.c.study_id == studies.c.study_id)
        .where(workers.c.worker_id == worker_id, studies.c.stop_asked_at > workers.c.started_at)
    )
    return _read(connection, asked)


def _read(connection: Connection, asked: Any) -> Orders:
    found = connection.execute(asked).first()
    return Orders() if found is None else Orders(stop=True, stop_now=bool(found.stop_now))


def _reopen(connection: Connection, study_id: int, trial_id: int) -> bool:
    chosen = (leases.c.trial_id == trial_id) & (leases.c.study_id == study_id) & leases.c.finished.is_(True)
    again = {"finished": False, "worker_id": None, "expires_at": 0.0, "result": None, "strikes": 0, "stumbles": 0}
    if connection.execute(update(leases).where(chosen).values(again)).rowcount != 1:
        return False
    running = {"state": "RUNNING", "datetime_complete": None}
    connection.execute(update(_trials).where(_trials.c.trial_id == trial_id).values(running))
    connection.execute(delete(_facts).where(_facts.c.trial_id == trial_id, _facts.c.key.in_(_TOLD)))
    connection.execute(delete(_marks).where(_marks.c.trial_id == trial_id, _marks.c.key.startswith(_CONSTRAINT)))
    return True
