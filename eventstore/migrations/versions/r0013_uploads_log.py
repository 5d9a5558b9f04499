"""The log of uploads: tables of its own, in parts that go whole (rule: two logs).

The release before goes on beside it: it appends what happens to sessions to the history, and so does this one until no
process of it lives (the feature `uploads-log`).
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON, TIMESTAMP, UUID

from eventstore.migrations.functions import SCHEMA

revision = "0013"
down_revision = "0012"
functions = "9bd482faf3671e1e"
serves_from = "0005"

NAME = sa.Text(collation="C")
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Create the tables and their first part, and say that there is such a log, which the relay follows too."""
    op.create_table(
        "es_upload_part",
        sa.Column("first_position", sa.BigInteger, nullable=False),
        # The time of the last event before the part, None where there is none.
        sa.Column("begun_after", TIME),
        # A time by which all sessions that began in the part had ended, None as long as one is open or may begin.
        sa.Column("ended_at", TIME),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        schema=SCHEMA,
    )
    op.execute("INSERT INTO log.es_upload_part (part, first_position) VALUES (1, 1)")
    _create_events()
    _create_streams()
    op.execute(
        "INSERT INTO log.es_log (log_id, partitions, epoch, system_identifier, timeline, created_at, relation)"
        " SELECT 1, l.partitions, l.epoch, l.system_identifier, l.timeline, clock_timestamp(), l.relation"
        " FROM log.es_log AS l WHERE l.log_id = 0"
    )
    op.execute(
        "INSERT INTO feed.relay (log_id, position, epoch) SELECT 1, 0, l.epoch FROM log.es_log AS l WHERE log_id = 0"
    )


def _create_events() -> None:
    op.create_table(
        "es_upload_event",
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("schema_version", sa.SmallInteger, nullable=False),
        sa.Column("sets_ref", sa.Boolean, nullable=False),
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
        # Always None; here so that whoever reads a log may ask for the same columns of each.
        sa.Column("content", NAME),
        sa.Column("data", JSON, nullable=False),
        sa.Column("state", JSON),
        sa.PrimaryKeyConstraint("position", "part"),
        schema=SCHEMA,
        postgresql_partition_by="LIST (part)",
    )
    op.create_index("es_upload_event_partition", "es_upload_event", ["partition", "position"], schema=SCHEMA)
    op.create_index("es_upload_event_key", "es_upload_event", ["key", "position"], schema=SCHEMA)
    op.execute(f"CREATE TABLE {SCHEMA}.es_upload_event_1 PARTITION OF {SCHEMA}.es_upload_event FOR VALUES IN (1)")


def _create_streams() -> None:
    op.create_table(
        "es_upload_stream",
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("log_id", sa.SmallInteger, nullable=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("ref", NAME),
        sa.Column("state", JSON),
        sa.PrimaryKeyConstraint("stream", "part"),
        schema=SCHEMA,
        postgresql_partition_by="LIST (part)",
    )
    op.create_index(
        "es_upload_stream_ref", "es_upload_stream", ["ref"], schema=SCHEMA, postgresql_where=sa.text("ref IS NOT NULL")
    )
    op.execute(
        f"CREATE TABLE {SCHEMA}.es_upload_stream_1 PARTITION OF {SCHEMA}.es_upload_stream FOR VALUES IN (1)"
        " WITH (fillfactor = 80)"
    )
