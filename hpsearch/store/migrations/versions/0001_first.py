"""The first tables: studies, leases, workers."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from hpsearch.store.migrations.repeatable import make_index, make_table

revision = "0001"
down_revision = None

_LONG = 2**24
_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    make_table(
        "hpsearch_studies",
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("spec", _LONG_TEXT, nullable=False),
        sa.Column("manifest", sa.LargeBinary(_LONG), nullable=False),
        sa.Column("trials", sa.Integer, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    make_table(
        "hpsearch_leases",
        sa.Column("lease_id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, unique=True),
        sa.Column("worker_id", sa.String(200)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("result", _LONG_TEXT),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.UniqueConstraint("study_id", "slot", name="uq_hpsearch_leases_study_slot"),
        sqlite_autoincrement=True,
    )
    make_table(
        "hpsearch_workers",
        sa.Column("worker_id", sa.String(200), primary_key=True),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("beat_at", sa.Float(53), nullable=False),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
    )
    make_index("hpsearch_leases", "study_id")
    make_index("hpsearch_workers", "study_id")
