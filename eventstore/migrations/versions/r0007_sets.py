"""Long lists of what events refer to and need, which are stored before the append and named by it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from eventstore.migrations.functions import SCHEMA

revision = "0007"
down_revision = "0006"
functions = "a0299b266742e949"
serves_from = "0005"

NAME = sa.Text(collation="C")


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "es_set",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        # None: it was let go of, and its members are being deleted.
        sa.Column("digest", NAME, unique=True),
        # Listed for the sweep since then, because perhaps no stream refers to it. None: it is not listed.
        sa.Column("idle_since", TIMESTAMP(timezone=True)),
        sa.Column("complete", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=SCHEMA,
    )
    op.create_index(
        "es_set_idle", "es_set", ["idle_since"], schema=SCHEMA, postgresql_where=sa.text("idle_since IS NOT NULL")
    )
    op.create_table(
        "es_set_member",
        sa.Column("set_id", sa.BigInteger, nullable=False),
        sa.Column("target", NAME, nullable=False),
        sa.Column("refers", sa.Boolean, nullable=False),
        sa.Column("ref", NAME),
        sa.Column("or_target", NAME),
        sa.Column("or_ref", NAME),
        sa.Column("need", sa.Integer),
        sa.PrimaryKeyConstraint("set_id", "target"),
        schema=SCHEMA,
    )
    op.create_index("es_set_member_target", "es_set_member", ["target", "set_id"], schema=SCHEMA)
