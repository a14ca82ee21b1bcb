"""Our tables, beside Optuna's. A change here needs a migration; `storage/README.md` explains each column."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    column,
    exists,
    table,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()

_LONG = 2**24  # MySQL's plain TEXT and BLOB hold 64 KiB
_LONG_TEXT = Text().with_variant(mysql.LONGTEXT(), "mysql")

studies = Table(
    "hpsearch_studies",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(200), nullable=False, unique=True),
    Column("spec", _LONG_TEXT, nullable=False),
    Column("manifest", LargeBinary(_LONG), nullable=False),
    Column("trials", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("uid", String(120), nullable=False, unique=True),
    Column("paused", Text),
    Column("failures_forgiven", Integer, nullable=False),
    Column("stop_asked_at", Float(53)),
    Column("stop_now", Boolean, nullable=False),
    Column("seen_at", Float(53), nullable=False),
    Column("grace_until", Float(53), nullable=False),
)

_optuna_studies = table("studies", column("study_id"), column("study_name"))
is_in_optuna = exists().where(
    and_(_optuna_studies.c.study_id == studies.c.study_id, _optuna_studies.c.study_name == studies.c.name)
)
"""Of a row of `studies`: not so once the dashboard or the `optuna` command has deleted it. Ids are given out again."""

leases = Table(
    "hpsearch_leases",
    metadata,
    Column("lease_id", Integer, primary_key=True),
    Column("study_id", Integer, nullable=False, index=True),
    Column("slot", Integer, nullable=False),
    Column("trial_id", Integer, unique=True),
    Column("worker_id", String(200)),
    Column("attempt", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("strikes", Integer, nullable=False),
    Column("progress", Integer, nullable=False),
    Column("stumbles", Integer, nullable=False),
    Column("reasons", _LONG_TEXT),
    Column("expires_at", Float(53), nullable=False),
    Column("result", _LONG_TEXT),
    Column("finished", Boolean, nullable=False),
    UniqueConstraint("study_id", "slot", name="uq_hpsearch_leases_study_slot"),
    Index("ix_hpsearch_leases_open", "study_id", "finished"),  # a claim looks at the open ones alone
    sqlite_autoincrement=True,  # an id of a deleted lease is never given out again: its worker may still be there
)

workers = Table(
    "hpsearch_workers",
    metadata,
    Column("worker_id", String(200), primary_key=True),
    Column("study_id", Integer, nullable=False, index=True),
    Column("device", String(200), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("beat_at", Float(53), nullable=False),
    Column("activity", Text, nullable=False),
    Column("gone", Boolean, nullable=False),
    Column("device_uuid", String(200)),
    Column("aside", Text),
    Column("job", String(200)),
)

launches = Table(
    "hpsearch_launches",
    metadata,
    Column("launch_id", Integer, primary_key=True),
    Column("study_id", Integer, nullable=False, index=True),
    Column("engine", String(40), nullable=False),
    Column("options", _LONG_TEXT, nullable=False),
    Column("jobs", _LONG_TEXT, nullable=False),
    Column("host", String(200), nullable=False),
    Column("started_at", Float(53), nullable=False),
)
