"""Moves builds on: their rows and their checkpoint change in one transaction, whichever feed gives the events.

The checkpoint's rows are locked before anything is read (rule: checkpoint first). Events of a feed are then judged by
the position that stands there, and not by what a process remembers: of two projectors the later one finds the work
done.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from domain.event import UnknownEvent
from domain.events import event_types
from eventstore.types import Recorded
from projections.engine import build_tables
from projections.engine.build_tables import Build
from projections.engine.folding import fold_into
from projections.model import FoldFailed, Model

# A fold that fails is tried again before its key is parked, in case it lacked something that was only late.
TRIES = 3
PAUSE_LOCK = 4715
PROBLEM_CHARACTERS = 500

_LOCK = """
SELECT c.partition, c.position, c.epoch, l.epoch,
       (SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0)
  FROM readmodel.checkpoint AS c, log.es_log AS l
 WHERE c.build = %(build)s AND l.log_id = 0
   AND (%(partitions)s::smallint[] IS NULL OR c.partition = ANY(%(partitions)s::smallint[]))
 ORDER BY c.partition
   FOR UPDATE OF c
"""
_MOVE = """
UPDATE readmodel.checkpoint AS c
   SET position = moved.position, topic_id = coalesce(moved.topic_id, c.topic_id),
       next_offset = coalesce(moved.next_offset, c.next_offset)
  FROM unnest(%(partitions)s::smallint[], %(positions)s::bigint[], %(topics)s::text[], %(offsets)s::bigint[])
       AS moved(partition, position, topic_id, next_offset)
 WHERE c.build = %(build)s AND c.partition = moved.partition
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockedCheckpoint:
    """A build's position in each partition, and the log's epoch and head, while the checkpoint is locked."""

    positions: dict[int, int]
    epoch: int
    head: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The new place of a partition: all its events up to `position` are folded, the topic goes on at `next_offset`."""

    position: int
    topic_id: str | None = None
    next_offset: int | None = None


def lock(connection: sa.Connection, build: Build, partitions: Sequence[int] | None = None) -> LockedCheckpoint | None:
    """Lock the build's checkpoint in these partitions (None: all); None if the build is gone.

    A checkpoint of another epoch is taken over if the log has the events that it counts. Otherwise the log was restored
    from a backup without the read models, and the build starts from nothing (rule: epochs).
    """
    connection.exec_driver_sql(
        "SELECT pg_advisory_xact_lock_shared(%(lock)s, %(model)s)",
        {"lock": PAUSE_LOCK, "model": model_number(build.model)},
    )
    asked = {"build": build.id, "partitions": None if partitions is None else list(partitions)}
    rows = list(connection.exec_driver_sql(_LOCK, asked))
    if not rows:
        return None
    epoch, head = int(rows[0][3]), int(rows[0][4])
    if any(row[2] != epoch for row in rows):
        _take_over(connection, build, epoch, head)
        rows = list(connection.exec_driver_sql(_LOCK, asked))
    return LockedCheckpoint({row[0]: row[1] for row in rows}, epoch, head)


def _take_over(connection: sa.Connection, build: Build, epoch: int, head: int) -> None:
    table = build_tables.checkpoint
    own = table.c.build == build.id
    furthest = connection.execute(
        sa.select(table.c.position).where(own).order_by(table.c.partition).with_for_update()
    ).scalars()
    if max(furthest) <= head:
        connection.execute(sa.update(table).where(own).values(epoch=epoch))
        _log.warning("read model %s goes on in epoch %d of the log", build.id, epoch)
        return
    _log.error("read model %s knows events that the log does not have: it is folded anew", build.id)
    connection.execute(sa.delete(build.table))
    connection.execute(sa.delete(build_tables.parked).where(build_tables.parked.c.build == build.id))
    connection.execute(sa.update(table).where(own).values(epoch=epoch, position=0, topic_id=None, next_offset=None))


@contextmanager
def paused(connection: sa.Connection, model: Model) -> Iterator[None]:
    """Keep everybody else from feeding the model's builds during the block."""
    key = {"lock": PAUSE_LOCK, "model": model_number(model)}
    connection.exec_driver_sql("SELECT pg_advisory_lock(%(lock)s, %(model)s)", key)
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql("SELECT pg_advisory_unlock(%(lock)s, %(model)s)", key)
        connection.commit()


def model_number(model: Model) -> int:
    """The number of the model in the keys of advisory locks."""
    return crc32(model.id.encode()) & 0x7FFFFFFF


def apply(
    connection: sa.Connection,
    build: Build,
    events: Sequence[Recorded],
    moved: Mapping[int, Moved],
    *,
    isolate: bool = False,
) -> None:
    """Fold the events that the model takes, in order, and move its locked checkpoint.

    Events of parked keys are left for `parking.replay`. With `isolate` a key whose fold fails is parked from there on;
    without it the failure is raised, and nothing is done. Raises UnknownEvent (rule: unknown types stop).
    """
    for each in events:
        if each.type not in event_types():
            raise UnknownEvent(f"event {each.position} has the unknown type {each.type!r}")
    parked = set(
        connection.execute(
            sa.select(build_tables.parked.c.key).where(build_tables.parked.c.build == build.id)
        ).scalars()
    )
    wanted = [each for each in events if each.type in build.model.types and each.key not in parked]
    if isolate:
        _fold_by_key(connection, build, wanted)
    elif wanted:
        fold_into(connection, build.model, build.table, wanted)
    places = list(moved.items())
    connection.exec_driver_sql(
        _MOVE,
        {
            "build": build.id,
            "partitions": [partition for partition, _ in places],
            "positions": [each.position for _, each in places],
            "topics": [each.topic_id for _, each in places],
            "offsets": [each.next_offset for _, each in places],
        },
    )


def is_poison(problem: Exception) -> bool:
    """True if an event is to blame: its fold failed, or the database does not take the rows that the fold made of it.

    All other failures come from the machine, the database or the program, and no repository is parked for them.
    """
    return isinstance(problem, (FoldFailed, DataError, IntegrityError))


def _fold_by_key(connection: sa.Connection, build: Build, events: Sequence[Recorded]) -> None:
    """Fold key by key. If a key fails, fold it event by event and park it from the event that fails."""
    by_key: dict[str, list[Recorded]] = {}
    for each in events:
        by_key.setdefault(each.key, []).append(each)
    for of_key in by_key.values():
        if _failure(connection, build, of_key) is None:
            continue
        for each in of_key:
            problem = _failure(connection, build, [each])
            if problem is not None:
                park(connection, build, each, problem)
                break


def _failure(connection: sa.Connection, build: Build, events: Sequence[Recorded]) -> Exception | None:
    """Fold the events in a transaction of their own. Answers the failure, after its changes were undone, or None."""
    try:
        with connection.begin_nested():
            fold_into(connection, build.model, build.table, events)
    except Exception as problem:
        if not is_poison(problem):
            raise
        return problem
    return None


def park(connection: sa.Connection, build: Build, event: Recorded, problem: Exception) -> None:
    """Park the event's key: it is not folded from this event on."""
    cause = problem.__cause__ or problem
    text = f"{type(cause).__name__}: {cause}"[:PROBLEM_CHARACTERS].replace("\x00", "")
    connection.execute(
        sa.insert(build_tables.parked).values(
            build=build.id,
            key=event.key,
            partition=event.partition,
            position=event.position,
            type=event.type,
            problem=text,
        )
    )
    _log.error("read model %s parks %s from position %d: %s", build.id, event.key, event.position, text)
