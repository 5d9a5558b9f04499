"""Makes a read model anew from the whole log, while it is read and written, and proves that the result is right.

1. The set fold fills the next build range by range, each in a short transaction that notes its progress. A fill that
   was broken off is resumed.
2. The Python fold catches up with the events that were appended meanwhile.
3. Both builds are compared at one position. Rows that differ are folded a third time, by Python from nothing, to tell
   which build is right. If the live build has hardly begun, some repositories are folded by Python instead.
4. One transaction points the views at the new build. The old one stays fed for a while (rule: views of one build).
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from projections.builds import compare
from projections.builds.compare import Difference
from projections.builds.fill import Progress, fill
from projections.engine import build_tables
from projections.engine.build_tables import LIVE, RETIRED, Build
from projections.engine.checkpoints import Moved, apply, lock, model_number, paused
from projections.engine.folding import read_batch, read_range
from projections.engine.setup import engine_for
from projections.model import FoldFailed, Model

REBUILD_LOCK = 4714
CATCH_UP_EVENTS = 2000
NEAR_EVENTS = 200
COMPARED_LAG_MAX = 50_000
SAMPLED_KEYS = 20
SWAP_LOCK_TIMEOUT_MS = 100
SWAP_TRIES = 600
SWAP_PAUSE_S = 0.05
KEEP_S = 3600.0

# The new build goes on in the topic where the old one was, which is no further than the new one now is.
_SAME_OFFSETS = """
UPDATE readmodel.checkpoint AS m SET topic_id = l.topic_id, next_offset = l.next_offset
  FROM readmodel.checkpoint AS l
 WHERE m.build = %(made)s AND l.build = %(live)s AND l.partition = m.partition
"""

_log = logging.getLogger(__name__)


class RebuildRefused(Exception):
    """The rebuild was not finished; the live build is as it was. The message says why."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of a rebuild. Readers waited `swap_s` at most; `mended` is the difference to the old build."""

    name: str
    position: int
    rows: int
    swap_s: float
    mended: Difference


def rebuild(database_url: str, model: Model, *, progress: Progress | None = None, keep_s: float = KEEP_S) -> Rebuilt:
    """Replace the live build of a model by one that is folded from the whole log.

    It may be broken off at any moment and called again; it then resumes its own work, and that of `fold`. Raises
    RebuildRefused if another rebuild of the model runs, or if the two folds disagree.
    """
    with engine_for(database_url).connect() as connection, _alone(connection, model):
        (made,) = fill(database_url, [model], progress)
        _catch_up(connection, made, None)
        difference = _compared(database_url, connection, made)
        if difference is None:
            difference = Difference(model.name, made.target, 0)
            _judge(connection, made, compare.sample_of_keys(connection, made, SAMPLED_KEYS))
        elif not difference.equal:
            _judge(connection, made, difference.keys)
            _log.error("read model %s was wrong in %d rows: the rebuild mends it", model.name, difference.rows)
        position, swap_s = _swap(connection, made, keep_s)
        rows = connection.execute(sa.select(sa.func.count()).select_from(made.table)).scalar_one()
        connection.commit()
        return Rebuilt(model.name, position, rows, swap_s, difference)


def fold(database_url: str, models: Sequence[Model], *, progress: Progress | None = None) -> None:
    """The first step for several models at once, which reads the log once for all; `rebuild` then goes on with each.

    Raises RebuildRefused if a rebuild of one of them runs.
    """
    with engine_for(database_url).connect() as connection, ExitStack() as alone:
        for model in models:
            alone.enter_context(_alone(connection, model))
        fill(database_url, models, progress)


@contextmanager
def _alone(connection: sa.Connection, model: Model) -> Iterator[None]:
    """Hold the model's own lock; the database drops it with the connection."""
    key = {"lock": REBUILD_LOCK, "model": model_number(model)}
    if not connection.execute(sa.text("SELECT pg_try_advisory_lock(:lock, :model)"), key).scalar_one():
        raise RebuildRefused(f"another rebuild of {model.name} is under way")
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(sa.text("SELECT pg_advisory_unlock(:lock, :model)"), key)
        connection.commit()


def _catch_up(connection: sa.Connection, made: Build, goal: dict[int, int] | None) -> None:
    """Fold by Python up to `goal`, a position for each partition; without one, to near the end of the log."""
    while True:
        with connection.begin():
            locked = lock(connection, made)
            if locked is None:
                raise RebuildRefused(f"build {made.id} was removed")
            limits = goal or dict.fromkeys(locked.positions, locked.head)
            pending = {each: at for each, at in locked.positions.items() if at < limits[each]}
            if not pending or (goal is None and locked.head - min(pending.values()) <= NEAR_EVENTS):
                return
            after = min(pending.values())
            events, upto = read_batch(connection, made.model, after, after + CATCH_UP_EVENTS, locked.positions)
            moved = {each: Moved(min(upto, limits[each])) for each, at in pending.items() if at < upto}
            wanted = [
                each for each in events if each.partition in moved and each.position <= moved[each.partition].position
            ]
            apply(connection, made, wanted, moved, isolate=True)


def _compared(database_url: str, connection: sa.Connection, made: Build) -> Difference | None:
    """The difference between the live build and the new one, both at one position, seen by one snapshot.

    None if the live build is so far behind (a new shape is, at first) that there is nothing to compare with.
    Projectors of the model pause only until both stand at one position and the snapshot is taken.
    """
    live = build_tables.live(connection, made.model)
    behind = min(compare.positions_of(connection, live.id).values())
    connection.commit()
    if made.target - behind > COMPARED_LAG_MAX:
        return None
    with engine_for(database_url).connect() as plain:
        snapshot = plain.execution_options(isolation_level="REPEATABLE READ")
        with paused(connection, made.model):
            places = [compare.positions_of(connection, each.id) for each in (live, made)]
            connection.commit()
            goal = {each: max(place[each] for place in places) for each in places[0]}
            for build in (live, made):
                _catch_up(connection, build, goal)
            snapshot.begin()
            snapshot.exec_driver_sql("SELECT 1")
        return compare.compare(snapshot, made.model, live.table, made.table, max(goal.values()))


def _judge(connection: sa.Connection, made: Build, keys: Iterable[str]) -> None:
    """Fold these keys by Python from nothing: if the SQL fold made other rows, nothing is swapped."""
    try:
        wrong = compare.differs_from_python(connection, made, keys)
    except FoldFailed as problem:
        connection.rollback()
        wrong = {problem.key}
    if wrong:
        build_tables.mark(connection, made, RETIRED, 0)
        connection.commit()
        raise RebuildRefused(
            f"the two folds of {made.model.name} disagree about {', '.join(sorted(wrong)[:5])}, or one cannot take its "
            "events: this is a defect of the program; nothing was swapped"
        )
    connection.commit()


def _swap(connection: sa.Connection, made: Build, keep_s: float) -> tuple[int, float]:
    """Bring the build level with the live one and point the views at it.

    Answers the position and how many seconds readers may have waited. A lock on a view is waited for no longer than a
    reader notices, and then asked for again.
    """
    for _ in range(SWAP_TRIES):
        try:
            with connection.begin():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {SWAP_LOCK_TIMEOUT_MS}")
                position = _level(connection, made, keep_s)
                began = time.monotonic()
                build_tables.show(connection, made)
            return position, time.monotonic() - began
        except OperationalError as problem:
            if getattr(problem.orig, "sqlstate", "") not in ("55P03", "40P01"):
                raise
            time.sleep(SWAP_PAUSE_S)
            _catch_up(connection, made, None)
    raise RebuildRefused(f"the views of {made.model.name} are in use without a pause; try again")


def _level(connection: sa.Connection, made: Build, keep_s: float) -> int:
    """Bring the build to the position of the live one, which is locked until the end of the transaction."""
    live = build_tables.live(connection, made.model)
    was = lock(connection, live)
    locked = lock(connection, made)
    if was is None or locked is None:
        raise RebuildRefused(f"build {made.id} was removed")
    after = min(locked.positions.values())
    upto = max(max(was.positions.values()), max(locked.positions.values()))
    events = read_range(connection, made.model, after, upto, locked.positions)
    moved = {each: Moved(upto) for each, position in locked.positions.items() if position < upto}
    if moved:
        apply(connection, made, events, moved, isolate=True)
    connection.exec_driver_sql(_SAME_OFFSETS, {"made": made.id, "live": live.id})
    build_tables.mark(connection, live, RETIRED, keep_s)
    build_tables.mark(connection, made, LIVE)
    return upto


def swap_back(database_url: str, model: Model, *, keep_s: float = KEEP_S) -> str:
    """Make the build that was live before live again; answers its name. Raises RebuildRefused if none is kept."""
    with engine_for(database_url).connect() as connection, _alone(connection, model):
        kept = build_tables.listed(connection, [model], [RETIRED])
        connection.commit()
        if not kept:
            raise RebuildRefused(f"no earlier build of {model.name} is kept")
        _catch_up(connection, kept[-1], None)
        _swap(connection, kept[-1], keep_s)
        return kept[-1].id
