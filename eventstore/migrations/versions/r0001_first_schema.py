"""The first schema: the log, the streams and refs kept beside it, commands, content, clients."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSON, TIMESTAMP, UUID

from eventstore.migrations.functions import SCHEMA
from eventstore.partition import DEFAULT_PARTITIONS

revision = "0001"
down_revision = None

# Names are compared as bytes, whatever the locale of the database.
NAME = sa.Text(collation="C")
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create everything; the application's role comes from the configuration's attributes."""
    app_role: str = context.config.attributes["app_role"]
    _create_log()
    _create_events()
    _create_streams()
    _create_beside()
    role = op.get_bind().dialect.identifier_preparer.quote(app_role)
    op.execute(f"CREATE SCHEMA IF NOT EXISTS readmodel AUTHORIZATION {role}")


def _create_log() -> None:
    op.create_table(
        "es_log",
        sa.Column("log_id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("partitions", sa.SmallInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("system_identifier", sa.Text, nullable=False),
        sa.Column("timeline", sa.Integer, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        schema=SCHEMA,
    )
    op.execute(
        f"INSERT INTO {SCHEMA}.es_log VALUES (0, {DEFAULT_PARTITIONS}, 1, '', 0, clock_timestamp())"  # noqa: S608
    )


def _create_events() -> None:
    op.create_table(
        "es_event",
        # Widest fixed columns first, so that no row carries padding.
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("schema_version", sa.SmallInteger, nullable=False),
        sa.Column("sets_ref", sa.Boolean, nullable=False),
        # Random, without a time in it: time enters only through the appender's clock.
        sa.Column("event_id", UUID, nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("type", NAME, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", UUID),
        sa.Column("prev_ref", NAME),
        sa.Column("ref", NAME),
        sa.Column("content", NAME),
        sa.Column("data", JSON, nullable=False),
        sa.Column("state", JSON),
        sa.Column("refers_to", ARRAY(NAME)),
        sa.PrimaryKeyConstraint("log_id", "position"),
        sa.UniqueConstraint("log_id", "stream", "version"),
        schema=SCHEMA,
    )
    op.create_index("es_event_partition", "es_event", ["log_id", "partition", "position"], schema=SCHEMA)
    op.create_index("es_event_key", "es_event", ["log_id", "key", "position"], schema=SCHEMA)
    op.create_index(
        "es_event_content", "es_event", ["content"], schema=SCHEMA, postgresql_where=sa.text("content IS NOT NULL")
    )


def _create_streams() -> None:
    op.create_table(
        "es_stream",
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("ref", NAME),
        sa.Column("state", JSON),
        sa.PrimaryKeyConstraint("log_id", "stream"),
        schema=SCHEMA,
        # Room for the next version on the same page: only `ref` is indexed, so most updates touch no index. An index
        # on recorded_at, even a partial one, would make every update write to every index.
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "es_stream_ref", "es_stream", ["log_id", "ref"], schema=SCHEMA, postgresql_where=sa.text("ref IS NOT NULL")
    )
    op.create_table(
        "es_ref",
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("target", NAME, nullable=False),
        sa.Column("from_stream", NAME, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "target", "from_stream"),
        schema=SCHEMA,
    )
    op.create_index("es_ref_from", "es_ref", ["log_id", "from_stream"], schema=SCHEMA)


def _create_beside() -> None:
    op.create_table(
        "es_command",
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("result", JSON, nullable=False),
        sa.PrimaryKeyConstraint("log_id", "id"),
        schema=SCHEMA,
    )
    op.create_table(
        "es_content",
        sa.Column("digest", NAME, primary_key=True),
        sa.Column("stored_at", TIME, nullable=False),
        sa.Column("body", BYTEA, nullable=False),
        sa.Column("facts", JSON, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "es_client",
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("user_agent", sa.Text),
        sa.PrimaryKeyConstraint("log_id", "first_position"),
        schema=SCHEMA,
    )
    for table in ("es_command", "es_client"):
        op.create_index(f"{table}_recorded_at", table, ["recorded_at"], schema=SCHEMA, postgresql_using="brin")
