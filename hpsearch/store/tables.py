"""Our tables, beside Optuna's. A change here needs a migration. Each column's `doc` is for people: see
`docs/reference/store.md`; the database knows nothing of it, as a `comment` would be part of its schema."""

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
    Column("study_id", Integer, primary_key=True, autoincrement=False, doc="Optuna's id of the study."),
    Column("name", String(200), nullable=False, unique=True, doc="Name of the study."),
    Column(
        "spec",
        _LONG_TEXT,
        nullable=False,
        doc="The study file as JSON with a version, all defaults filled in, as it was when the study was created.",
    ),
    Column(
        "manifest",
        LargeBinary(_LONG),
        nullable=False,
        doc="Gzipped JSON: row ids and SHA-256 of each split, and which rows were left out and why.",
    ),
    Column("trials", Integer, nullable=False, doc="Number of trials wanted: how many slots there are."),
    Column("folder", Text, nullable=False, doc="Folder of the study file; relative data paths start there."),
    Column("created_at", Float(53), nullable=False, doc="When the study was created."),
    Column(
        "uid",
        String(120),
        nullable=False,
        unique=True,
        doc="The study's own id, unique over all stores; the folder of its trials is named after it.",
    ),
    Column("paused", Text, doc="Why no trial starts; empty: trials start."),
    Column(
        "failures_forgiven",
        Integer,
        nullable=False,
        doc="Number of failed trials that don't pause the study again, counted when a person resumed it.",
    ),
    Column(
        "stop_asked_at",
        Float(53),
        doc="When `hpsearch stop` asked the workers to leave; it holds for those that started before.",
    ),
    Column("stop_now", Boolean, nullable=False, doc="Whether they leave without saving."),
    Column("seen_at", Float(53), nullable=False, doc="When a worker of the study last reached the store."),
    Column(
        "grace_until",
        Float(53),
        nullable=False,
        doc="Until when, after an outage of the store, no trial is taken over.",
    ),
    info={"about": "One row for each study."},
)

_optuna_studies = table("studies", column("study_id"), column("study_name"))
is_in_optuna = exists().where(
    and_(_optuna_studies.c.study_id == studies.c.study_id, _optuna_studies.c.study_name == studies.c.name)
)
"""Whether the study of a row still exists in Optuna: the dashboard or `optuna` may delete it. Ids are reused."""

leases = Table(
    "hpsearch_leases",
    metadata,
    Column("lease_id", Integer, primary_key=True, doc="Id of the lease."),
    Column("study_id", Integer, nullable=False, index=True, doc="The study."),
    Column(
        "slot",
        Integer,
        nullable=False,
        doc="Number of the slot; a study has each only once, so that no more trials start than are wanted.",
    ),
    Column("trial_id", Integer, unique=True, doc="Optuna's id of the trial in this slot."),
    Column("worker_id", String(200), doc="Worker that holds the trial; empty: released."),
    Column(
        "attempt",
        Integer,
        nullable=False,
        doc="Number of claims so far: the fencing token. A write with an older one is refused.",
    ),
    Column("deaths", Integer, nullable=False, doc="Number of claims whose worker was lost."),
    Column(
        "strikes", Integer, nullable=False, doc="Attempts in a row without progress; after three the trial has failed."
    ),
    Column("progress", Integer, nullable=False, doc="Furthest optimizer step of any attempt."),
    Column(
        "stumbles",
        Integer,
        nullable=False,
        doc="Number of workers that failed at this trial by a bug in hpsearch; after two the trial has failed.",
    ),
    Column("reasons", _LONG_TEXT, doc="How its attempts ended, as a JSON list."),
    Column(
        "expires_at",
        Float(53),
        nullable=False,
        doc="When the trial may be taken over by another worker; renewed while its worker lives.",
    ),
    Column("result", _LONG_TEXT, doc="The trial's result as JSON, kept until it is in Optuna."),
    Column("finished", Boolean, nullable=False, doc="Whether the slot's trial has ended."),
    UniqueConstraint("study_id", "slot", name="uq_hpsearch_leases_study_slot"),
    Index("ix_hpsearch_leases_open", "study_id", "finished"),  # a claim reads only the open ones
    sqlite_autoincrement=True,  # ids are never reused: the worker of a deleted lease may still be running
    info={"about": "One row for each slot of a study that was ever claimed: who runs its trial, and until when."},
)

attempts = Table(
    "hpsearch_attempts",
    metadata,
    Column("lease_id", Integer, primary_key=True, autoincrement=False, doc="The slot's lease."),
    Column("attempt", Integer, primary_key=True, autoincrement=False, doc="Number of the claim, from 1."),
    Column("study_id", Integer, nullable=False, index=True, doc="The study."),
    Column("worker_id", String(200), nullable=False, doc="Worker that claimed the slot."),
    Column("began_at", Float(53), nullable=False, doc="When it did."),
    Column(
        "ended_at", Float(53), doc="When it ended the trial or gave it back; empty: not yet, or its worker was lost."
    ),
    Column("ending", String(40), doc="The trial's outcome, or why it was released."),
    info={"about": "One row for each claim of a slot, for the timeline: who had it, from when until when."},
)

workers = Table(
    "hpsearch_workers",
    metadata,
    Column("worker_id", String(200), primary_key=True, doc="`host:pid:start`, unique for ever."),
    Column("study_id", Integer, nullable=False, index=True, doc="The study."),
    Column("device", String(200), nullable=False, doc="Name of its device."),
    Column("started_at", Float(53), nullable=False, doc="When it started."),
    Column("beat_at", Float(53), nullable=False, doc="When it last gave a sign of life."),
    Column("activity", Text, nullable=False, doc="What it does now, as JSON, for `hpsearch status`."),
    Column("gone", Boolean, nullable=False, doc="Whether it has left."),
    Column("device_uuid", String(200), doc="The GPU's own id."),
    Column("aside", Text, doc="Why its device takes no more trials."),
    Column("job", String(200), doc="Name that its engine gives its job, as SLURM's `1234_5`."),
    info={"about": "One row for each worker that ever joined a study."},
)

launches = Table(
    "hpsearch_launches",
    metadata,
    Column("launch_id", Integer, primary_key=True, doc="Id of the launch."),
    Column("study_id", Integer, nullable=False, index=True, doc="The study."),
    Column("engine", String(40), nullable=False, doc="Name of the engine, as in `hpsearch launch --on`."),
    Column("options", _LONG_TEXT, nullable=False, doc="The engine's options as JSON, to ask it again."),
    Column("jobs", _LONG_TEXT, nullable=False, doc="The engine's names of the jobs, and their logs, as JSON."),
    Column("host", String(200), nullable=False, doc="Machine that `hpsearch launch` ran on."),
    Column("started_at", Float(53), nullable=False, doc="When it ran."),
    info={"about": "One row for each `hpsearch launch`."},
)
