"""Attempts with causes, studies that pause and have an id of their own, devices that are set aside."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from hpsearch.store.migrations.repeatable import add_column, is_nullable, is_unique

revision = "0002"
down_revision = "0001"

_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    add_column("hpsearch_studies", sa.Column("uid", sa.String(120)))
    add_column("hpsearch_studies", sa.Column("paused", sa.Text))
    add_column("hpsearch_studies", sa.Column("failures_forgiven", sa.Integer, nullable=False, server_default="0"))
    add_column("hpsearch_studies", sa.Column("stop_asked_at", sa.Float(53)))
    add_column("hpsearch_studies", sa.Column("stop_now", sa.Boolean, nullable=False, server_default=sa.false()))
    add_column("hpsearch_studies", sa.Column("seen_at", sa.Float(53), nullable=False, server_default="0"))
    add_column("hpsearch_studies", sa.Column("grace_until", sa.Float(53), nullable=False, server_default="0"))
    _give_ids()
    with op.batch_alter_table("hpsearch_studies") as studies:
        if is_nullable("hpsearch_studies", "uid"):
            studies.alter_column("uid", existing_type=sa.String(120), nullable=False)
        if not is_unique("hpsearch_studies", "uq_hpsearch_studies_uid"):
            studies.create_unique_constraint("uq_hpsearch_studies_uid", ["uid"])

    # Not in a batch: SQLite would recreate the table, and ids of deleted leases would be reused.
    add_column("hpsearch_leases", sa.Column("strikes", sa.Integer, nullable=False, server_default="0"))
    add_column("hpsearch_leases", sa.Column("progress", sa.Integer, nullable=False, server_default="0"))
    add_column("hpsearch_leases", sa.Column("stumbles", sa.Integer, nullable=False, server_default="0"))
    add_column("hpsearch_leases", sa.Column("reasons", _LONG_TEXT))
    add_column("hpsearch_workers", sa.Column("device_uuid", sa.String(200)))
    add_column("hpsearch_workers", sa.Column("aside", sa.Text))


def _give_ids() -> None:
    """For studies that existed before: their trials continue in new folders."""
    table = sa.table("hpsearch_studies", sa.column("study_id"), sa.column("name"), sa.column("uid"))
    connection = op.get_bind()
    nameless = sa.select(table.c.study_id, table.c.name).where(table.c.uid.is_(None))
    for study_id, name in connection.execute(nameless).all():
        own_id = f"{name}-{uuid4().hex[:12]}"
        connection.execute(sa.update(table).where(table.c.study_id == study_id).values(uid=own_id))
