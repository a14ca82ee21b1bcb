"""A worker's memory of a study's trials, so that reading them costs the same with 5,000 finished trials as with none.

A finished trial never changes: Optuna refuses it (`check_trial_is_updatable`), and numbers only grow. The one
exception is `hpsearch retry`, which reopens trials and changes a mark of the study; after that everything is read
again. So an update reads the mark, the rows of trials that were unfinished or absent last time, and the contents of
those that have ended since.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any
from uuid import uuid4

from optuna.storages._rdb.models import StudyModel, StudySystemAttributeModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, and_, insert, select, update

from hpsearch.errors import HpsearchError
from hpsearch.store.trials import UNFINISHED, Ended, ended_rows, read_trials

_REOPENED = "hpsearch:reopened"
"""A mark on the study that changes each time trials of it are reopened."""
_STUDIES: Any = StudyModel.__table__
_MARKS: Any = StudySystemAttributeModel.__table__


def forget_what_was_seen(connection: Connection, study_id: int) -> None:
    """Makes every process that caches the study's trials read them again. The caller holds the study's row."""
    mark = json.dumps(uuid4().hex)
    own = and_(_MARKS.c.study_id == study_id, _MARKS.c.key == _REOPENED)
    if connection.execute(update(_MARKS).where(own).values(value_json=mark)).rowcount == 0:
        connection.execute(insert(_MARKS).values(study_id=study_id, key=_REOPENED, value_json=mark))


class StudyMemory:
    """The study's trials, cached; callers must not change them."""

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._forget()

    def _forget(self) -> None:
        self._trials: dict[int, FrozenTrial] = {}
        self._unfinished: set[int] = set()
        self._mark: str | None = None

    @property
    def trials(self) -> list[FrozenTrial]:
        """In the order of their numbers, as of the last look."""
        return list(self._trials.values())

    def trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[trial_id]

    def look(self, connection: Connection, inside: Container[TrialState], at: int | None = None) -> None:
        """Refreshes the cache. `inside`: unfinished trials of these states are read in full; so is the one with the id
        `at`.

        Raises HpsearchError where the study was deleted.
        """
        self._heed_mark(connection)
        newest = max(self._trials, default=-1)
        rows: list[Ended] = [
            tuple(row) for row in connection.execute(ended_rows(self._study_id, None, self._unfinished, newest)).all()
        ]
        full = [row for row in rows if row[2] not in UNFINISHED or row[2] in inside or row[0] == at]
        read = read_trials(connection, self._study_id, full) if full else {}
        for row in rows:
            self._trials[row[0]] = read.get(row[0]) or _outside(row)
            (self._unfinished.add if row[2] in UNFINISHED else self._unfinished.discard)(row[0])

    def _heed_mark(self, connection: Connection) -> None:
        joined = and_(_MARKS.c.study_id == _STUDIES.c.study_id, _MARKS.c.key == _REOPENED)
        chosen = select(_MARKS.c.value_json).select_from(_STUDIES.outerjoin(_MARKS, joined))
        found = connection.execute(chosen.where(_STUDIES.c.study_id == self._study_id)).first()
        if found is None:
            raise HpsearchError("the study is no longer in the store: it was deleted")
        if found[0] != self._mark:
            self._forget()
            self._mark = found[0]


def _outside(row: Ended) -> FrozenTrial:
    """A trial of which only the existence is known."""
    trial_id, number, state, _begin, _end = row
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )
