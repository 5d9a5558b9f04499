"""Tables for the keeper: tables whose upkeep costs what it removes, and where its tasks stand.

The release before goes on beside it: the functions that it calls use the new tables too.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from eventstore.migrations.functions import SCHEMA

revision = "0008"
down_revision = "0007"
functions = "b2ebea835de887d1"
serves_from = "0005"

FEED = "feed"
NAME = sa.Text(collation="C")
TIME = TIMESTAMP(timezone=True)
RING_PARTS = 3


def upgrade() -> None:
    """Create the list of new content, the ring of idempotency keys, the keeper's tasks."""
    app_role: str = context.config.attributes["app_role"]
    op.create_table(
        "es_content_new",
        sa.Column("stored_at", TIME, nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.PrimaryKeyConstraint("stored_at", "digest"),
        schema=SCHEMA,
    )
    op.create_table(
        "es_command_ring",
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("part", sa.SmallInteger, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "id", "part"),
        schema=SCHEMA,
        postgresql_partition_by="LIST (part)",
    )
    for part in range(RING_PARTS):
        op.execute(
            f"CREATE TABLE {SCHEMA}.es_command_{part} PARTITION OF {SCHEMA}.es_command_ring FOR VALUES IN ({part})"
        )
    op.create_table(
        "task",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("tried_at", TIME, nullable=False),
        sa.Column("succeeded_at", TIME),
        sa.Column("removed", sa.BigInteger, nullable=False),
        sa.Column("backlog", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text),
        schema=FEED,
    )
    op.create_table(
        "backfill",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("mark", sa.Text, nullable=False, server_default=""),
        sa.Column("done_at", TIME),
        schema=FEED,
    )
    op.execute(f"INSERT INTO {FEED}.backfill (name) VALUES ('list-content')")  # noqa: S608 - constants
    role = op.get_bind().dialect.identifier_preparer.quote(app_role)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {FEED}.task, {FEED}.backfill TO {role}")
    # Nobody calls it, and its successor has one parameter more, so it would stand beside it.
    op.execute(f"DROP FUNCTION IF EXISTS {SCHEMA}.es_erase_clients(smallint, timestamptz)")
