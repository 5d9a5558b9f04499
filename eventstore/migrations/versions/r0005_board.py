"""The board of a server that keeps answers, and its processes' places (rule: appends need the board)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from eventstore.migrations.functions import SCHEMA

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "es_board",
        sa.Column("log_id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("board", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", TIMESTAMP(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "es_writer",
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("place", sa.SmallInteger, nullable=False),
        sa.Column("board", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "place"),
        schema=SCHEMA,
    )
    # Its successor has more parameters, so it would stand beside it.
    op.execute(f"DROP FUNCTION IF EXISTS {SCHEMA}.es_append(smallint, jsonb, boolean)")
