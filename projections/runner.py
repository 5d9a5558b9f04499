"""The projector: feeds every read model from the store, in batches, rows and position in one transaction."""

import logging
import threading
import time
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from projections.folding import fold_into, read_range
from projections.model import Model, checkpoint
from projections.models import MODELS
from projections.setup import engine_for, ensure_tables

BATCH_EVENTS = 2000
POLL_S = 0.005
POLL_MAX_S = 0.1
RETRY_S = 0.2
RETRY_MAX_S = 10.0

_HEAD = "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Progress:
    """How far a model is known to be, and when it is tried again after a failure."""

    position: int = 0
    retry_at: float = 0.0
    retry_s: float = RETRY_S
    failed: set[str] = field(default_factory=set)


def run(database_url: str, stop: threading.Event, *, batch: int = BATCH_EVENTS) -> None:
    """Project until stopped; reconnects by itself while the database is away.

    A model whose fold fails stops, loudly, and is tried again; the others go on.
    """
    retry_s = RETRY_S
    while not stop.is_set():
        try:
            ensure_tables(database_url)
            with engine_for(database_url).connect() as connection:
                # Rows and position are lost together or not at all, and both can be folded again.
                connection.exec_driver_sql("SET synchronous_commit = off")
                connection.commit()
                retry_s = RETRY_S
                _project(connection, stop, batch)
        except DBAPIError as problem:
            _log.warning("the database is away, trying again in %.1f s: %s", retry_s, problem.orig)
            stop.wait(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)


def _project(connection: sa.Connection, stop: threading.Event, batch: int) -> None:
    progress = {model.id: _Progress() for model in MODELS}
    pause = POLL_S
    while not stop.is_set():
        head = connection.exec_driver_sql(_HEAD).scalar_one()
        connection.commit()
        moved = False
        for model in MODELS:
            standing = progress[model.id]
            if standing.position < head and time.monotonic() >= standing.retry_at:
                moved |= _step(connection, model, standing, head, batch)
        pause = POLL_S if moved else min(2 * pause, POLL_MAX_S)
        if not moved:
            stop.wait(pause)


def _step(connection: sa.Connection, model: Model, standing: _Progress, head: int, batch: int) -> bool:
    try:
        standing.position = advance(connection, model, head, batch)
    except DBAPIError:
        raise
    except Exception:  # noqa: BLE001 - whatever a fold raises stops its model alone, loudly
        connection.rollback()
        _log.exception("read model %s stopped after position %d", model.name, standing.position)
        standing.retry_at = time.monotonic() + standing.retry_s
        standing.retry_s = min(2 * standing.retry_s, RETRY_MAX_S)
        return False
    standing.retry_s = RETRY_S
    return True


def advance(connection: sa.Connection, model: Model, head: int, batch: int = BATCH_EVENTS) -> int:
    """Fold the next batch into one model and answer its new position.

    The checkpoint's rows are locked first: of two projectors the later one finds the work done (S21).
    """
    with connection.begin():
        locked = connection.execute(
            sa.select(checkpoint.c.partition, checkpoint.c.position)
            .where(checkpoint.c.model == model.id)
            .order_by(checkpoint.c.partition)
            .with_for_update()
        )
        positions: dict[int, int] = {row.partition: row.position for row in locked}
        after = min(positions.values())
        upto = min(head, after + batch)
        if upto <= after:
            return after
        fold_into(connection, model, model.table, read_range(connection, model, after, upto, positions))
        connection.execute(
            sa.update(checkpoint)
            .where(checkpoint.c.model == model.id, checkpoint.c.position < upto)
            .values(position=upto)
        )
    return upto
