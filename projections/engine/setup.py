"""Makes the tables of read models where they are missing, and engines to reach them."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa

from eventstore.connection import BoundedConnection, connect
from projections.all_models import MODELS
from projections.engine import build_tables
from projections.model import Model

SETUP_LOCK = 4713
# Statements touch some thousand rows, so the limit is reached only if the database is stuck.
STATEMENT_TIMEOUT_S = 30.0
# SQLAlchemy makes many statements that differ; only those that come again are worth preparing.
PREPARE_THRESHOLD = 5


@lru_cache(maxsize=16)
def engine_for(database_url: str, *, statement_timeout_s: float | None = None) -> sa.Engine:
    """An engine without a pool: for the projector and for tools, which hold one connection.

    Each call answers the same engine, because a new one would ask the database for its version again. Only rebuild and
    verify, which read the whole log, have no time limit.
    """
    engine = sa.create_engine(
        database_url.replace("postgresql://", "postgresql+psycopg://", 1).replace(
            "postgres://", "postgresql+psycopg://", 1
        ),
        poolclass=sa.NullPool,
    )

    @sa.event.listens_for(engine, "do_connect")
    def bounded(
        dialect: sa.Dialect, record: object, arguments: Sequence[object], parameters: dict[str, Any]
    ) -> BoundedConnection:
        connection = connect(
            name="tagtrail-projector",
            statement_timeout_s=statement_timeout_s,
            prepare_threshold=PREPARE_THRESHOLD,
            **parameters,
        )
        connection.autocommit = False
        return connection

    return engine


def driver_of(connection: sa.Connection) -> psycopg.Connection:
    """The driver's own connection."""
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


def ensure_tables(database_url: str, models: Iterable[Model] = MODELS) -> None:
    """Give each model that has none an empty live build at position 0.

    Reads are right at once, because they fold the tail, and fast once the build is filled. Any number of processes may
    do this at the same time.
    """
    with engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S).begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SETUP_LOCK})
        build_tables.prepare(connection)
        for model in models:
            if not build_tables.listed(connection, [model], [build_tables.LIVE]):
                made = build_tables.create(connection, model, build_tables.FILLING, 0)
                build_tables.show(connection, build_tables.finish(connection, made, build_tables.LIVE))
