"""Checking a store: is the file intact, do the tables fit together, can every study be read. It changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages._rdb.models import StudySystemAttributeModel, TrialSystemAttributeModel
from sqlalchemy import Connection, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from hpsearch.errors import InputError
from hpsearch.jobs import Check
from hpsearch.store import specs
from hpsearch.store.engine import RESCUE, named
from hpsearch.store.reading import reading
from hpsearch.store.versions import version_of_optuna, version_of_ours


def check_store(url: URL, artifacts: Path) -> list[Check]:
    """Raises NoStoreYet, InputError or StoreUnreachable where the store can't be read."""
    with reading(url) as engine, engine.connect() as connection:
        checks = [_file(connection, url), *_versions(connection)]
        if all(check.verdict == "works" for check in checks):
            checks += [_specs(connection), *_rows(connection), _artifacts(connection, artifacts)]
    return checks


def _found(name: str, wrong: list[str], right: str, fix: str) -> Check:
    if not wrong:
        return Check(name=name, verdict="works", found=right)
    return Check(name=name, verdict="fails", found="; ".join(wrong), fix=fix)


def _file(connection: Connection, url: URL) -> Check:
    if connection.dialect.name != "sqlite":
        return Check(name="database", verdict="works", found=f"{named(url)} answers")
    try:
        found = list(connection.execute(text("PRAGMA integrity_check(5)")).scalars())
    except DatabaseError as error:
        found = [str(error.orig)]
    wrong = [] if found == ["ok"] else found
    return _found("file", wrong, f"{named(url)} is whole", RESCUE)


def _versions(connection: Connection) -> list[Check]:
    return [
        _found(
            f"{version.whose}'s tables",
            [version.mismatch] if version.mismatch else [],
            f"version {version.found}",
            version.fix,
        )
        for version in (version_of_ours(connection), version_of_optuna(connection))
    ]


def _specs(connection: Connection) -> Check:
    wrong, rows = [], connection.execute(text("SELECT name, spec FROM hpsearch_studies ORDER BY name")).all()
    for name, kept in rows:
        try:
            specs.from_text(kept)
        except InputError as error:
            wrong.append(f"{name} {error}")
    fix = "other studies are not affected; update hpsearch, or continue the study under a new name"
    return _found("studies", wrong, f"{len(rows)} can be read", fix)


_OF_A_STUDY = "FROM hpsearch_leases l JOIN hpsearch_studies s ON s.study_id = l.study_id"
_ROWS: tuple[tuple[str, str, str, str], ...] = (
    (
        "leases",
        f"SELECT s.name, l.slot {_OF_A_STUDY} LEFT JOIN trials t ON t.trial_id = l.trial_id "
        "AND t.study_id = l.study_id WHERE l.trial_id IS NOT NULL AND t.trial_id IS NULL",
        "slot {1} of {0} names a trial that is gone",
        "go back to the last backup: the trial was deleted from Optuna's tables by hand",
    ),
    (
        "ends",
        f"SELECT s.name, t.number {_OF_A_STUDY} JOIN trials t ON t.trial_id = l.trial_id "
        "WHERE l.finished AND t.state IN ('RUNNING', 'WAITING')",
        "trial {1} of {0} is finished for hpsearch, but not for Optuna",
        "optuna tell --study-name STUDY --trial-number NUMBER --state fail",
    ),
    (
        "trials",
        "SELECT s.name, t.number FROM trials t JOIN hpsearch_studies s ON s.study_id = t.study_id "
        "LEFT JOIN hpsearch_leases l ON l.trial_id = t.trial_id WHERE t.state = 'RUNNING' AND l.lease_id IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM hpsearch_leases o WHERE o.study_id = t.study_id "
        "AND o.trial_id IS NULL AND NOT o.finished)",  # such a slot finds its trial again
        "trial {1} of {0} is running, but no worker has a lease for it",
        "optuna tell --study-name STUDY --trial-number NUMBER --state fail",
    ),
)


def _rows(connection: Connection) -> list[Check]:
    checks = []
    for name, query, words, fix in _ROWS:
        wrong = [words.format(*row) for row in connection.execute(text(f"{query} ORDER BY 1, 2")).all()]
        checks.append(_found(name, wrong, "belong together", fix))
    return checks


def _artifacts(connection: Connection, folder: Path) -> Check:
    if not folder.is_dir():
        return Check(name="artifacts", verdict="works", found=f"none on this machine ({folder})")
    kept: list[Any] = []
    for model in (StudySystemAttributeModel, TrialSystemAttributeModel):
        table: Any = model.__table__
        chosen = select(table.c.value_json).where(table.c.key.contains("artifacts:"))
        kept += [json.loads(value) for value in connection.scalars(chosen)]
    metas = [json.loads(meta) for meta in kept if isinstance(meta, str)]  # deleted values are kept as null
    wrong = [f"{meta['filename']} ({meta['artifact_id']})" for meta in metas if meta and _is_missing(folder, meta)]
    shown = [*wrong[:3], f"and {len(wrong) - 3} more"] if len(wrong) > 3 else wrong
    there = sum(meta is not None for meta in metas)
    fix = f"put the files back into {folder}; pictures of hpsearch's own are drawn again by hpsearch dashboard"
    return _found("artifacts", [f"missing: {', '.join(shown)}"] if wrong else [], f"{there} are there", fix)


def _is_missing(folder: Path, meta: dict[str, Any]) -> bool:
    return not (folder / str(meta["artifact_id"])).exists()
