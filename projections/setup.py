"""Making the tables of the read models and their checkpoints where they are missing."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from projections.model import checkpoint, metadata
from projections.models import MODELS

SETUP_LOCK = 4713


def engine_for(database_url: str) -> sa.Engine:
    """An engine without a pool: for the projector and for tools, which hold one connection."""
    return sa.create_engine(
        database_url.replace("postgresql://", "postgresql+psycopg://", 1).replace(
            "postgres://", "postgresql+psycopg://", 1
        ),
        poolclass=sa.NullPool,
        connect_args={"connect_timeout": 5, "application_name": "tagtrail-projector"},
    )


def ensure_tables(database_url: str) -> None:
    """Create what is missing; a new model starts at position 0. Any number of processes may do it at once."""
    with engine_for(database_url).begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SETUP_LOCK})
        metadata.create_all(connection)
        log = connection.execute(sa.text("SELECT partitions, epoch FROM log.es_log WHERE log_id = 0")).one()
        rows = [
            {"model": model.id, "partition": partition, "position": 0, "epoch": log.epoch}
            for model in MODELS
            for partition in range(log.partitions)
        ]
        connection.execute(insert(checkpoint).on_conflict_do_nothing(), rows)
