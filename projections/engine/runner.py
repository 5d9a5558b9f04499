"""The runner keeps every build of its read models up with the log, fed by the store itself or by Kafka."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from domain.features import HANDLED
from eventstore.feed.bell import QUIET_S, Bell
from eventstore.feed.members import BEAT_S as SHARING_BEAT_S
from eventstore.feed.members import Member, Membership
from eventstore.feed.metrics import EVENTS_CONSUMED
from eventstore.feed.settings import KafkaSettings
from eventstore.feed.waking import Stop
from projections.engine import build_tables
from projections.engine.attempts import Attempts
from projections.engine.build_tables import Build
from projections.engine.checkpoints import Moved, apply, lock
from projections.engine.folding import read_batch
from projections.engine.setup import STATEMENT_TIMEOUT_S, driver_of, engine_for, ensure_tables
from projections.model import Model

BATCH_EVENTS = 2000
POLL_S = 0.005
POLL_MAX_S = 0.1
# A projector that is level waits so long for more events: a pass over all builds costs the same for one event as for
# hundreds, and reads do not wait for it.
GATHER_S = 0.2
# If more events than these came while it waited, there is load that goes on: it waits longer, and takes fewer passes.
GATHER_EVENTS = 50
GATHER_BUSY_S = 1.0
RETRY_S = 0.2
RETRY_MAX_S = 10.0
REFRESH_S = 0.5
# Only a new epoch moves a build back. A checkpoint that somebody changed by hand is noticed after this time.
RECHECK_S = 60.0
# Without Kafka there is nothing to share, so heartbeats may be rare.
BEAT_S = 5.0

_HEAD = """
SELECT l.epoch, (SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0)
  FROM log.es_log AS l WHERE l.log_id = 0
"""
_log = logging.getLogger(__name__)


def run(
    database_url: str,
    stop: Stop,
    models: Iterable[Model],
    *,
    kafka: KafkaSettings | None = None,
    batch: int = BATCH_EVENTS,
    connected: Callable[[], None] = lambda: None,
) -> None:
    """Fold what is appended until stopped; reconnects by itself while the database is away.

    `connected` is called at each new connection. Raises failures of the machine.
    """
    models = tuple(models)
    wants = None
    if kafka is not None:
        # Kafka's client is loaded only where it is used.
        from projections.engine import kafka_feed

        wants = kafka_feed.wants(models)
    member = Member("projector", frozenset(each.id for each in models), HANDLED["projector"])
    members = Membership(database_url, member, wants, beat_s=BEAT_S if wants is None else SHARING_BEAT_S).start()
    retry_s = RETRY_S
    try:
        while not stop.is_set():
            try:
                ensure_tables(database_url, models)
                with engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S).connect() as connection:
                    _prepare(connection)
                    connected()
                    retry_s = RETRY_S
                    if kafka is None:
                        _Follower(connection, models, members, batch).run(stop)
                    else:
                        kafka_feed.KafkaFeed(connection, models, kafka, members, batch).run(stop)
            except (DBAPIError, psycopg.Error) as problem:
                # The bell speaks to the driver itself, which raises its own errors.
                told = problem.orig if isinstance(problem, DBAPIError) else problem
                _log.warning("the database is away, trying again in %.1f s: %s", retry_s, told)
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
    finally:
        members.close()


def _prepare(connection: sa.Connection) -> None:
    # Rows and position are lost together or not at all, and both can be folded again.
    connection.exec_driver_sql("SET synchronous_commit = off")
    # A new connection may be to a database that was restored (rule: epochs).
    connection.exec_driver_sql("SELECT log.es_note_cluster(0::smallint)")
    connection.commit()


class _Follower:
    """One stretch of following the log by the store alone, on one connection."""

    def __init__(self, connection: sa.Connection, models: Sequence[Model], members: Membership, batch: int) -> None:
        self._connection = connection
        self._models = models
        self._members = members
        self._batch = batch
        self._attempts = Attempts()
        self._bell = Bell(driver_of(connection))
        self._fed: list[Build] = []
        self._positions: dict[str, int] = {}
        self._refresh_at = self._recheck_at = 0.0
        self._epoch = self._head = -1
        # The end of the log when all builds were last level with it, None before.
        self._level_at: int | None = None
        self._changed_at = time.monotonic()

    def run(self, stop: Stop) -> None:
        """Feed the builds until stopped. Look often while there is something to do, else wait for a notification."""
        pause = POLL_S
        while not stop.is_set():
            if self._members.refusal is not None:
                stop.wait(POLL_MAX_S)
                continue
            self._look()
            moved = self._advance()
            level = all(self._positions.get(build.id, -1) >= self._head for build in self._fed)
            if moved:
                pause = POLL_S
                if level:
                    stop.wait(gather_s(0 if self._level_at is None else self._head - self._level_at))
                    self._level_at = self._head
            elif level and time.monotonic() - self._changed_at > QUIET_S:
                self._bell.wait(stop)
            else:
                stop.wait(pause)
                pause = min(2 * pause, POLL_MAX_S)

    def _look(self) -> None:
        """Learn which builds there are and where the log ends."""
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_S
            found = build_tables.listed(self._connection, self._models)
            if found != self._fed:
                self._fed, self._changed_at = found, now
                self._positions.clear()
        epoch, head = self._connection.exec_driver_sql(_HEAD).one()
        self._connection.commit()
        if epoch != self._epoch or now >= self._recheck_at:
            self._epoch, self._recheck_at = epoch, now + RECHECK_S
            self._positions.clear()
        if head != self._head:
            self._head, self._changed_at = head, now
            self._bell.leave()

    def _advance(self) -> bool:
        """Fold a batch into each build that is behind; True if any moved."""
        moved = False
        for build in self._fed:
            if self._positions.get(build.id, -1) < self._head and self._attempts.may(build):

                def step(isolate: bool, build: Build = build) -> bool:
                    self._positions[build.id] = advance(
                        self._connection, build, self._head, self._batch, isolate=isolate
                    )
                    return True

                moved |= self._attempts.run(self._connection, build, step)
        return moved


def gather_s(events: int) -> float:
    """The seconds that a level projector waits for more events, if so many came since it was level before."""
    return GATHER_S if events <= GATHER_EVENTS else GATHER_BUSY_S


def advance(
    connection: sa.Connection, build: Build, head: int, batch: int = BATCH_EVENTS, *, isolate: bool = False
) -> int:
    """Fold the next batch of the store's events into a build, in all partitions; answers its new position."""
    with connection.begin():
        locked = lock(connection, build)
        if locked is None:
            return head
        after = min(locked.positions.values())
        upto = min(head, locked.head, after + batch)
        if upto <= after:
            return after
        events, upto = read_batch(connection, build.model, after, upto, locked.positions)
        moved = {partition: Moved(upto) for partition, position in locked.positions.items() if position < upto}
        apply(connection, build, events, moved, isolate=isolate)
    EVENTS_CONSUMED.labels("store").inc(len(events))
    return upto
