"""Making what read models need where it is missing."""

from collections.abc import Iterable

import sqlalchemy as sa

from projections import builds
from projections.model import Model
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


def ensure_tables(database_url: str, models: Iterable[Model] = MODELS) -> None:
    """Give each model that has none an empty live build at position 0: right at once, and fast when it is folded.

    Any number of processes may do it at once.
    """
    with engine_for(database_url).begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SETUP_LOCK})
        builds.prepare(connection)
        for model in models:
            if not builds.listed(connection, [model], [builds.LIVE]):
                made = builds.create(connection, model, builds.FILLING, 0)
                builds.show(connection, builds.finish(connection, made, builds.LIVE))
