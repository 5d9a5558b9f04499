"""Tables of the feed: leases, live processes, the relay's checkpoint; and the log's epoch (rule: epochs)."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0003"
down_revision = "0002"

FEED = "feed"
NAME = sa.Text(collation="C")
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the schema `feed`, whose tables the application's role may write."""
    app_role: str = context.config.attributes["app_role"]
    op.add_column("es_log", sa.Column("relation", sa.Text, nullable=False, server_default=""), schema="log")
    op.execute(f"CREATE SCHEMA {FEED}")
    op.create_table(
        "lease",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("until", TIME, nullable=False),
        schema=FEED,
    )
    op.create_table(
        "process",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("shapes", ARRAY(sa.Text), nullable=False),
        sa.Column("event_types", ARRAY(sa.Text), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        schema=FEED,
    )
    op.create_table(
        "relay",
        sa.Column("log_id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("cluster_id", sa.Text, nullable=False, server_default=""),
        sa.Column("topic_ids", sa.Text, nullable=False, server_default=""),
        sa.Column("problem", sa.Text),
        sa.Column("published_at", TIME),
        schema=FEED,
    )
    op.execute("INSERT INTO feed.relay (log_id, position, epoch) SELECT log_id, 0, epoch FROM log.es_log")
    role = op.get_bind().dialect.identifier_preparer.quote(app_role)
    op.execute(f"GRANT USAGE ON SCHEMA {FEED} TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {FEED} TO {role}")
