"""Attempts: each claim of a slot, with its worker, its begin and its end. Earlier ones are not known."""

import sqlalchemy as sa

from hpsearch.store.migrations.repeatable import make_index, make_table

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    make_table(
        "hpsearch_attempts",
        sa.Column("lease_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.String(200), nullable=False),
        sa.Column("began_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("ending", sa.String(40)),
    )
    make_index("hpsearch_attempts", "study_id")
