"""Launches: workers that were asked of an engine, and the engine's own name of each worker's job. Open leases."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from hpsearch.store.migrations.repeatable import add_column, make_index, make_table

revision = "0003"
down_revision = "0002"

_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    make_table(
        "hpsearch_launches",
        sa.Column("launch_id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("engine", sa.String(40), nullable=False),
        sa.Column("options", _LONG_TEXT, nullable=False),
        sa.Column("jobs", _LONG_TEXT, nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
    )
    make_index("hpsearch_launches", "study_id")
    add_column("hpsearch_workers", sa.Column("job", sa.String(200)))
    make_index("hpsearch_leases", "study_id", "finished", name="ix_hpsearch_leases_open")
