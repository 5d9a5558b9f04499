"""The projector: keeps every build of its read models up with the log, fed by the store itself or by Kafka."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from domain.features import HANDLED
from eventstore.feed.members import Member, Membership
from eventstore.feed.metrics import EVENTS_CONSUMED
from eventstore.feed.settings import KafkaSettings
from projections import builds, housekeeping
from projections.attempts import Attempts
from projections.builds import Build
from projections.feeding import Moved, apply, lock
from projections.folding import reach, read_range
from projections.model import Model
from projections.models import MODELS
from projections.setup import STATEMENT_TIMEOUT_S, engine_for, ensure_tables

BATCH_EVENTS = 2000
POLL_S = 0.005
POLL_MAX_S = 0.1
# Who is level waits so long for more: a pass over all builds costs the same for one event as for hundreds, and reads do
# not wait for it.
GATHER_S = 0.2
RETRY_S = 0.2
RETRY_MAX_S = 10.0
REFRESH_S = 0.5

_HEAD = "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0"
_log = logging.getLogger(__name__)


def run(
    database_url: str,
    stop: threading.Event,
    *,
    models: Iterable[Model] = MODELS,
    kafka: KafkaSettings | None = None,
    batch: int = BATCH_EVENTS,
) -> None:
    """Project until stopped; reconnects by itself while the database is away."""
    models = tuple(models)
    wants = None
    if kafka is not None:
        # Kafka's client is loaded only where it is used.
        from projections import kafka_feed

        wants = kafka_feed.wants(models)
    member = Member("projector", frozenset(each.id for each in models), HANDLED["projector"])
    members = Membership(database_url, member, wants).start()
    house = housekeeping.Housekeeping(database_url, models, stop).start()
    retry_s = RETRY_S
    try:
        while not stop.is_set():
            try:
                ensure_tables(database_url, models)
                with engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S).connect() as connection:
                    _prepare(connection)
                    retry_s = RETRY_S
                    if kafka is None:
                        _follow_store(connection, models, members, stop, batch)
                    else:
                        kafka_feed.KafkaFeed(connection, models, kafka, members, batch).run(stop)
            except DBAPIError as problem:
                _log.warning("the database is away, trying again in %.1f s: %s", retry_s, problem.orig)
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
    finally:
        members.close()
        house.join()


def _prepare(connection: sa.Connection) -> None:
    # Rows and position are lost together or not at all, and both can be folded again.
    connection.exec_driver_sql("SET synchronous_commit = off")
    # A new connection may be to a database that was restored (S10).
    connection.exec_driver_sql("SELECT log.es_note_cluster(0::smallint)")
    connection.commit()


def _follow_store(
    connection: sa.Connection, models: Sequence[Model], members: Membership, stop: threading.Event, batch: int
) -> None:
    attempts = Attempts()
    positions: dict[str, int] = {}
    fed: list[Build] = []
    refresh_at, pause = 0.0, POLL_S
    while not stop.is_set():
        if members.refusal is not None:
            stop.wait(POLL_MAX_S)
            continue
        if time.monotonic() >= refresh_at:
            fed = builds.listed(connection, models)
            refresh_at = time.monotonic() + REFRESH_S
            # An epoch that changed moves positions back.
            positions.clear()
        head = connection.exec_driver_sql(_HEAD).scalar_one()
        connection.commit()
        moved = False
        for build in fed:
            if positions.get(build.id, -1) < head and attempts.may(build):

                def step(isolate: bool, build: Build = build, head: int = head) -> bool:
                    positions[build.id] = advance(connection, build, head, batch, isolate=isolate)
                    return True

                moved |= attempts.run(connection, build, step)
        if not moved:
            stop.wait(pause)
            pause = min(2 * pause, POLL_MAX_S)
        elif all(positions.get(build.id, head) >= head for build in fed):
            stop.wait(GATHER_S)
            pause = POLL_S


def advance(
    connection: sa.Connection, build: Build, head: int, batch: int = BATCH_EVENTS, *, isolate: bool = False
) -> int:
    """Fold the next batch of the store's events into a build, in all partitions; answers its new position."""
    with connection.begin():
        standing = lock(connection, build)
        if standing is None:
            return head
        after = min(standing.positions.values())
        upto = min(head, standing.head, after + batch)
        if upto <= after:
            return after
        upto = reach(connection, build.model, after, upto)
        events = read_range(connection, build.model, after, upto, positions=standing.positions)
        moved = {partition: Moved(upto) for partition, position in standing.positions.items() if position < upto}
        apply(connection, build, events, moved, isolate=isolate)
    EVENTS_CONSUMED.labels("store").inc(len(events))
    return upto
