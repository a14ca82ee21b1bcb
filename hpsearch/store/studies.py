"""Studies: the spec as it was when the study was created, its manifest, and how many trials it may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hpsearch.spec.study import StudySpec
from hpsearch.store.engine import database_now
from hpsearch.store.tables import leases, studies, workers


@dataclass(frozen=True)
class StoredStudy:
    """`folder` is where the study file stood: relative paths of its data count from there."""

    study_id: int
    name: str
    spec: StudySpec
    manifest: bytes
    trials: int
    folder: Path
    created_at: float


class Studies:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, study_id: int, spec: StudySpec, trials: int, manifest: bytes, folder: Path) -> bool:
        """False when another worker created it first."""
        try:
            with self._engine.begin() as connection:
                values = {
                    "study_id": study_id,
                    "name": spec.study,
                    "spec": spec.model_dump_json(),
                    "manifest": manifest,
                    "trials": trials,
                    "folder": str(folder.resolve()),
                    "created_at": database_now(connection),
                }
                connection.execute(insert(studies).values(values))
        except IntegrityError:
            return False
        return True

    def find(self, name: str) -> StoredStudy | None:
        return next((study for study in self.all() if study.name == name), None)

    def all(self) -> list[StoredStudy]:
        with self._engine.begin() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.created_at)).all()
        return [
            StoredStudy(
                study_id=row.study_id,
                name=row.name,
                spec=StudySpec.model_validate_json(row.spec),
                manifest=row.manifest,
                trials=row.trials,
                folder=Path(row.folder),
                created_at=row.created_at,
            )
            for row in rows
        ]

    def update(self, study_id: int, spec: StudySpec, trials: int) -> None:
        """Takes over what may change in a spec (see `spec.study.MAY_CHANGE`) and the number of trials."""
        with self._engine.begin() as connection:
            values = {"spec": spec.model_dump_json(), "trials": trials}
            connection.execute(update(studies).where(studies.c.study_id == study_id).values(values))

    def forget(self, study_id: int) -> None:
        """Removes our rows of a study that is deleted from Optuna."""
        with self._engine.begin() as connection:
            for table in (leases, workers, studies):
                connection.execute(delete(table).where(table.c.study_id == study_id))
