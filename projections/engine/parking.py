"""Lists parked keys, and goes on with them once the defect was mended (rule: parked keys)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from eventstore.types import Recorded
from projections.all_models import MODELS
from projections.engine import build_tables
from projections.engine.build_tables import LIVE, Build
from projections.engine.checkpoints import is_poison, lock
from projections.engine.folding import fold_into, read_key
from projections.engine.setup import engine_for

BATCH_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Parked:
    """A key that a build does not fold from a position on, because of the event that stands there."""

    build: str
    model: str
    key: str
    position: int
    type: str
    problem: str
    parked_at: datetime
    live: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result for a parked key: `problem` is None if it is folded again like all others."""

    build: str
    key: str
    events: int
    problem: str | None


def parked_keys(connection: sa.Connection) -> list[Parked]:
    """All parked keys of all builds."""
    of = {each.id: each for each in build_tables.listed(connection, MODELS)}
    rows = connection.execute(
        sa.select(build_tables.parked).order_by(build_tables.parked.c.build, build_tables.parked.c.key)
    )
    return [
        Parked(
            *(row.build, of[row.build].model.name, row.key, row.position, row.type, row.problem, row.parked_at),
            of[row.build].state == LIVE,
        )
        for row in rows
        if row.build in of
    ]


def replay(database_url: str) -> Iterator[Replayed]:
    """Fold every parked key on from its position; a key that still fails stays parked where it fails."""
    with engine_for(database_url).connect() as connection:
        of = {each.id: each for each in build_tables.listed(connection, MODELS)}
        waiting = parked_keys(connection)
        connection.commit()
        for each in waiting:
            yield _replay(connection, of[each.build], each)


def _replay(connection: sa.Connection, build: Build, parked: Parked) -> Replayed:
    done = 0
    while True:
        with connection.begin():
            # The checkpoint is locked, so that no event of the key slips between the last one here and the feed.
            locked = lock(connection, build)
            own = sa.and_(build_tables.parked.c.build == build.id, build_tables.parked.c.key == parked.key)
            place = connection.execute(sa.select(build_tables.parked).where(own)).first()
            if locked is None or place is None:
                return Replayed(build.id, parked.key, done, None)
            upto = locked.positions[place.partition]
            events, more = read_key(connection, build.model, parked.key, place.position - 1, upto, BATCH_EVENTS)
            problem, taken = _fold_in_order(connection, build, events)
            done += taken
            if problem is not None:
                stuck = events[taken]
                connection.execute(
                    sa.update(build_tables.parked)
                    .where(own)
                    .values(position=stuck.position, type=stuck.type, problem=problem, parked_at=sa.func.now())
                )
                return Replayed(build.id, parked.key, done, problem)
            if not more:
                connection.execute(sa.delete(build_tables.parked).where(own))
                return Replayed(build.id, parked.key, done, None)
            connection.execute(sa.update(build_tables.parked).where(own).values(position=events[-1].position + 1))


def _fold_in_order(connection: sa.Connection, build: Build, events: list[Recorded]) -> tuple[str | None, int]:
    """Fold event by event. Answers the problem that stopped it, if any, and the number of events folded."""
    for taken, each in enumerate(events):
        try:
            with connection.begin_nested():
                fold_into(connection, build.model, build.table, [each])
        except Exception as problem:
            if not is_poison(problem):
                raise
            cause = problem.__cause__ or problem
            return f"{type(cause).__name__}: {cause}"[:500].replace("\x00", ""), taken
    return None, len(events)
