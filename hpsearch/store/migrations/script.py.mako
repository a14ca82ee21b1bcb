"""${message}"""

import sqlalchemy as sa

from hpsearch.store.migrations.repeatable import add_column, make_index, make_table

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
