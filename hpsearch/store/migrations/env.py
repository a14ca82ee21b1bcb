"""Runs our migrations on the connection that `store.migrate` hands over."""

from alembic import context

from hpsearch.store.tables import metadata
from hpsearch.store.versions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
