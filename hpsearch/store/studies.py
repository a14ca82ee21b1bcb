"""Studies: the spec as it was when the study was created, its manifest, and how many trials it may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hpsearch.errors import InputError
from hpsearch.spec.study import StudySpec
from hpsearch.store import specs
from hpsearch.store.engine import database_now
from hpsearch.store.tables import attempts, is_in_optuna, launches, leases, studies, workers


@dataclass(frozen=True)
class StoredStudy:
    """`folder` is the study file's folder: relative paths of its data start there.

    `uid` is unique for ever, across stores: its trials' folders are named after it. `paused` is the reason why no trial
    begins, if so.
    """

    study_id: int
    uid: str
    name: str
    spec: StudySpec
    manifest: bytes
    trials: int
    folder: Path
    created_at: float
    paused: str | None = None


@dataclass(frozen=True)
class UnreadableStudy:
    """A study whose spec this hpsearch can't read; `reason` is a clause that follows the name."""

    study_id: int
    uid: str
    name: str
    reason: str


class Studies:
    """A study that was deleted from Optuna does not count, even if rows of ours are left."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, study_id: int, spec: StudySpec, trials: int, manifest: bytes, folder: Path) -> bool:
        """False when another worker created it first."""
        try:
            with self._engine.begin() as connection:
                now = database_now(connection)
                values = {
                    "study_id": study_id,
                    "uid": f"{spec.study}-{uuid4().hex[:12]}",
                    "name": spec.study,
                    "spec": specs.to_text(spec),
                    "manifest": manifest,
                    "trials": trials,
                    "folder": str(folder.resolve()),
                    "created_at": now,
                    "seen_at": now,
                    "grace_until": 0.0,
                    "failures_forgiven": 0,
                    "stop_now": False,
                }
                connection.execute(insert(studies).values(values))
        except IntegrityError:
            return False
        return True

    def find(self, name: str) -> StoredStudy | None:
        """Raises InputError where its spec can't be read."""
        with self._engine.begin() as connection:
            row = connection.execute(select(studies).where(is_in_optuna, studies.c.name == name)).first()
        found = None if row is None else _study(row)
        if isinstance(found, UnreadableStudy):
            raise InputError(f"study {name!r} {found.reason}")
        return found

    def all(self, *, manifests: bool = True) -> list[StoredStudy]:
        """The studies that can be read, the oldest first. Without `manifests`, which may be megabytes, these are
        empty.
        """
        return [study for study in self._every(manifests) if isinstance(study, StoredStudy)]

    def unreadable(self) -> list[UnreadableStudy]:
        return [study for study in self._every(manifests=False) if isinstance(study, UnreadableStudy)]

    def _every(self, manifests: bool) -> list[StoredStudy | UnreadableStudy]:
        asked = [column for column in studies.c if manifests or column is not studies.c.manifest]
        with self._engine.begin() as connection:
            rows = connection.execute(select(*asked).where(is_in_optuna).order_by(studies.c.created_at)).all()
        return [_study(row) for row in rows]

    def update(self, study_id: int, spec: StudySpec, trials: int, folder: Path | None = None) -> int | None:
        """Updates the fields of a spec that may change (see `spec.study.MAY_CHANGE`), the number of trials, and the
        study file's folder.

        If more trials than `trials` have begun, returns their number and changes nothing. No trial begins meanwhile, so
        the budget is exact.
        """
        values: dict[str, object] = {"spec": specs.to_text(spec), "trials": trials}
        if folder is not None:
            values["folder"] = str(folder.resolve())
        with self._engine.begin() as connection:
            connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())
            counted = select(func.count()).where(leases.c.study_id == study_id)
            begun = connection.scalar(counted) or 0
            if begun > trials:
                return int(begun)
            connection.execute(update(studies).where(studies.c.study_id == study_id).values(values))
        return None

    def why_paused(self, study_id: int) -> str | None:
        with self._engine.begin() as connection:
            return connection.scalar(select(studies.c.paused).where(studies.c.study_id == study_id))

    def forget_deleted(self) -> None:
        """Deletes our rows of studies that were deleted from Optuna."""
        with self._engine.begin() as connection:
            deleted = connection.scalars(select(studies.c.study_id).where(~is_in_optuna)).all()
            for table in (attempts, leases, workers, launches, studies) if deleted else ():
                connection.execute(delete(table).where(table.c.study_id.in_(deleted)))


def _study(row: Any) -> StoredStudy | UnreadableStudy:
    try:
        spec = specs.from_text(row.spec)
    except InputError as error:
        return UnreadableStudy(row.study_id, row.uid, row.name, str(error))
    return StoredStudy(
        study_id=row.study_id,
        uid=row.uid,
        name=row.name,
        spec=spec,
        manifest=getattr(row, "manifest", b""),
        trials=row.trials,
        folder=Path(row.folder),
        created_at=row.created_at,
        paused=row.paused,
    )
