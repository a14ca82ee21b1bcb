"""Attempts with causes, studies that pause and have an id of their own, devices that are set aside."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    with op.batch_alter_table("hpsearch_studies") as studies:
        studies.add_column(sa.Column("uid", sa.String(120)))
        studies.add_column(sa.Column("paused", sa.Text))
        studies.add_column(sa.Column("failures_forgiven", sa.Integer, nullable=False, server_default="0"))
        studies.add_column(sa.Column("stop_asked_at", sa.Float(53)))
        studies.add_column(sa.Column("stop_now", sa.Boolean, nullable=False, server_default=sa.false()))
        studies.add_column(sa.Column("seen_at", sa.Float(53), nullable=False, server_default="0"))
        studies.add_column(sa.Column("grace_until", sa.Float(53), nullable=False, server_default="0"))
    _give_ids()
    with op.batch_alter_table("hpsearch_studies") as studies:
        studies.alter_column("uid", existing_type=sa.String(120), nullable=False)
        studies.create_unique_constraint("uq_hpsearch_studies_uid", ["uid"])
    # Not in a batch: SQLite would make the table anew, and its ids of deleted leases would be given out again.
    op.add_column("hpsearch_leases", sa.Column("strikes", sa.Integer, nullable=False, server_default="0"))
    op.add_column("hpsearch_leases", sa.Column("progress", sa.Integer, nullable=False, server_default="0"))
    op.add_column("hpsearch_leases", sa.Column("stumbles", sa.Integer, nullable=False, server_default="0"))
    op.add_column("hpsearch_leases", sa.Column("reasons", _LONG_TEXT))
    op.add_column("hpsearch_workers", sa.Column("device_uuid", sa.String(200)))
    op.add_column("hpsearch_workers", sa.Column("aside", sa.Text))


def _give_ids() -> None:
    """Studies that were there before: their trials go on in new folders."""
    table = sa.table("hpsearch_studies", sa.column("study_id"), sa.column("name"), sa.column("uid"))
    connection = op.get_bind()
    for study_id, name in connection.execute(sa.select(table.c.study_id, table.c.name)).all():
        own_id = f"{name}-{uuid4().hex[:12]}"
        connection.execute(sa.update(table).where(table.c.study_id == study_id).values(uid=own_id))
