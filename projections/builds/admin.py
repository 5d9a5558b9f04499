"""The state of read models and relay, for operators and for metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from psycopg import sql

from projections.all_models import MODELS
from projections.engine import build_tables, parking
from projections.engine.build_tables import FED, FILLING, LIVE
from projections.engine.parking import Parked
from projections.engine.setup import STATEMENT_TIMEOUT_S, engine_for
from projections.reader import NO_END
from projections.statements import statement

# Events that a build has not folded are counted up to this number for each partition. More are estimated, because a
# count of all would cost most when things are worst.
COUNTED_EVENTS_MAX = 1000

# The first event that a build has not folded tells by its time how long the build has been behind.
_BEHIND = statement(
    """
SELECT c.build, c.partition, c.position,
       (SELECT count(*) FROM (
            SELECT FROM log.es_event AS e
             WHERE e.log_id = 0 AND e.partition = c.partition AND e.position > c.position AND {no_end}
             ORDER BY e.position LIMIT %(counted)s) AS first),
       (SELECT e.recorded_at FROM log.es_event AS e
         WHERE e.log_id = 0 AND e.partition = c.partition AND e.position > c.position AND {no_end}
         ORDER BY e.position LIMIT 1),
       (SELECT l.holder FROM feed.lease AS l
         WHERE l.name = b.model || '/' || c.partition AND l.until > clock_timestamp())
  FROM readmodel.checkpoint AS c JOIN readmodel.build AS b ON b.id = c.build
 WHERE b.model = ANY(%(models)s) ORDER BY c.build, c.partition
""",
    no_end=sql.SQL(NO_END),
)
_LOG = """
SELECT (SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0), l.epoch, clock_timestamp()
  FROM log.es_log AS l WHERE l.log_id = 0
"""
_RELAY = """
SELECT r.position, r.published_at, r.problem,
       (SELECT l.holder FROM feed.lease AS l WHERE l.name = 'relay/0' AND l.until > clock_timestamp()),
       EXISTS (SELECT FROM feed.process AS p WHERE p.kind = 'relay'),
       u.position,
       greatest((SELECT max(p.first_position) - 1 FROM log.es_upload_part AS p),
                (SELECT e.position FROM log.es_upload_event AS e ORDER BY e.position DESC LIMIT 1))
  FROM feed.relay AS r JOIN feed.relay AS u ON u.log_id = 1 WHERE r.log_id = 0
"""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition of a build: `lag` events are not folded; `owner` is the projector that feeds it by Kafka.

    From COUNTED_EVENTS_MAX on, `lag` is estimated.
    """

    partition: int
    position: int
    lag: int
    lag_s: float
    owner: str | None


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """A build; `filled` of `target` positions while it is filled."""

    id: str
    name: str
    state: str
    position: int
    lag: int
    lag_s: float
    target: int
    filled: int
    keep_until: datetime | None
    partitions: tuple[PartitionStatus, ...]


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The progress of the relay in both logs; `problem` is the reason why it does not go on.

    `known` is True if a relay was alive during the last ten minutes; one that ended in order is not known any more.
    """

    position: int
    lag: int
    published_at: datetime | None
    problem: str | None
    owner: str | None
    known: bool
    uploads_position: int
    uploads_lag: int


@dataclass(frozen=True, slots=True)
class Status:
    """The position of the log's last event, its epoch, every build, the parked keys, and the relay."""

    head: int
    epoch: int
    builds: tuple[BuildStatus, ...]
    parked: tuple[Parked, ...]
    relay: RelayStatus

    @property
    def models(self) -> tuple[BuildStatus, ...]:
        """The live builds, which readers see."""
        return tuple(each for each in self.builds if each.state == LIVE)


def status(database_url: str) -> Status:
    """The state of the log, of every build and of the relay."""
    with engine_for(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S).connect() as connection:
        return read_status(connection)


def read_status(connection: sa.Connection) -> Status:
    """As `status`, on an open connection."""
    asked = {"models": [each.id for each in MODELS], "counted": COUNTED_EVENTS_MAX}
    rows = list(connection.exec_driver_sql(_BEHIND, asked))
    relay = connection.exec_driver_sql(_RELAY).one()
    head, epoch, now = connection.exec_driver_sql(_LOG).one()
    partitions: dict[str, list[PartitionStatus]] = {}
    for build_id, partition, position, lag, since, owner in rows:
        lag_s = max(0.0, (now - since).total_seconds()) if since is not None else 0.0
        partitions.setdefault(build_id, []).append(PartitionStatus(partition, position, lag, lag_s, owner))
    partitions = {build_id: _estimated(parts, head) for build_id, parts in partitions.items()}
    found = []
    for each in build_tables.listed(connection, MODELS, (*FED, FILLING)):
        parts = tuple(partitions.get(each.id, ()))
        found.append(
            BuildStatus(
                each.id,
                each.model.name,
                each.state,
                min((part.position for part in parts), default=0),
                sum(part.lag for part in parts),
                max((part.lag_s for part in parts), default=0.0),
                each.target,
                each.filled,
                each.keep_until,
                parts,
            )
        )
    order = [each.name for each in MODELS]
    found.sort(key=lambda each: (order.index(each.name), each.id))
    parked = tuple(parking.parked_keys(connection))
    return Status(head, epoch, tuple(found), parked, _relay_status(relay, head))


def _relay_status(row: Sequence[Any], head: int) -> RelayStatus:
    position, published_at, problem, owner, known, uploads_position, uploads_head = row
    return RelayStatus(
        position=position,
        lag=max(0, head - position),
        published_at=published_at,
        problem=problem,
        owner=owner,
        known=known,
        uploads_position=uploads_position,
        uploads_lag=max(0, uploads_head - uploads_position),
    )


def _estimated(parts: list[PartitionStatus], head: int) -> list[PartitionStatus]:
    """The partitions of a build, with an estimate where there are more events than were counted.

    Partitions that were not counted to their end share the remaining events equally. The sum is right if all
    partitions stand at one position, as they do unless Kafka feeds them.
    """
    more = [each for each in parts if each.lag >= COUNTED_EVENTS_MAX]
    counted = sum(each.lag for each in parts if each not in more)
    shares = {
        each.partition: max(each.lag, (head - each.position - counted + number) // len(more))
        for number, each in enumerate(more)
    }
    return [replace(each, lag=shares.get(each.partition, each.lag)) for each in parts]
