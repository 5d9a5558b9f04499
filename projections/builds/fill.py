"""Fills new builds from the whole log by the set fold, for several models at once, so that the log is read once.

Each range of the log is folded for every model in one short transaction that notes its progress, so that a
broken-off fill can be resumed. The log is cut into stripes, one for each connection that folds.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import sqlalchemy as sa

from eventstore.partition import PARTITIONS
from projections.builds.set_fold import RANGE_EVENTS, begin, collect_superseded, insert_range
from projections.columns import SCHEMA
from projections.engine import build_tables
from projections.engine.build_tables import FILLING, FOLLOWING, Build
from projections.engine.setup import engine_for
from projections.model import Model

# The number of connections that fold at once.
FILLERS = 2

Progress = Callable[[int, int], None]


def fill(database_url: str, models: Sequence[Model], progress: Progress | None = None) -> list[Build]:
    """Fill a build of each model and give it its indexes; projectors feed it from then on.

    A fill that was broken off is resumed. The caller makes sure that nobody else fills builds of these models.
    """
    with engine_for(database_url).begin() as connection:
        partitions = connection.exec_driver_sql(PARTITIONS).scalar_one()
        found = _resumable(connection, models)
        missing = [model for model in models if model.id not in {each.model.id for each in found}]
        found += _created(connection, missing, partitions)
    unfilled = [each for each in found if each.state == FILLING]
    counter = _Counter(unfilled, progress)
    for group in _groups(unfilled):
        _fill(database_url, group, [group[0].target] * partitions, counter)
    with ThreadPoolExecutor(FILLERS) as pool:
        finished = list(pool.map(lambda made: _finished(database_url, made), unfilled))
    by_model = {each.model.id: each for each in (*found, *finished)}
    return [by_model[model.id] for model in models]


def _resumable(connection: sa.Connection, models: Sequence[Model]) -> list[Build]:
    """The last build of each model whose fill was broken off in this epoch; other such builds are removed."""
    epoch = connection.exec_driver_sql("SELECT l.epoch FROM log.es_log AS l WHERE l.log_id = 0").scalar_one()
    found = build_tables.listed(connection, models, [FILLING, FOLLOWING])
    usable = (each for each in found if each.epoch == epoch and (each.state == FOLLOWING or each.superseded))
    kept = {each.model.id: each for each in usable}
    for each in found:
        if kept.get(each.model.id) is not each:
            build_tables.drop(connection, each.id)
    return list(kept.values())


def _created(connection: sa.Connection, models: Sequence[Model], partitions: int) -> list[Build]:
    if not models:
        return []
    head = connection.exec_driver_sql(
        "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0"
    ).scalar_one()
    superseded = f"{SCHEMA}.superseded_{secrets.token_hex(8)}"
    collect_superseded(connection, models, superseded, [head] * partitions)
    return [build_tables.create(connection, model, FILLING, head, FILLERS, superseded) for model in models]


def _groups(found: Sequence[Build]) -> Iterator[list[Build]]:
    """Groups of builds with equal progress: those that began together."""

    def place(made: Build) -> tuple[str, tuple[int, ...]]:
        return made.superseded or "", made.reached

    for _, group in groupby(sorted(found, key=place), key=place):
        yield list(group)


class _Counter:
    """Tells how many positions are folded, of all builds together."""

    def __init__(self, unfilled: Sequence[Build], progress: Progress | None) -> None:
        self._progress = progress
        self._done = sum(each.filled for each in unfilled)
        self._total = sum(each.target for each in unfilled)
        self._lock = threading.Lock()

    def add(self, folded: int) -> None:
        with self._lock:
            self._done += folded
            if self._progress is not None:
                self._progress(self._done, self._total)


def _fill(database_url: str, group: Sequence[Build], limits: Sequence[int], counter: _Counter) -> None:
    """Fold the stripes of the log side by side."""
    stop = threading.Event()

    def fill_stripe(stripe: int, after: int, end: int) -> None:
        with engine_for(database_url).connect() as connection:
            connection.exec_driver_sql("SET synchronous_commit = off")
            begin(connection)
            connection.commit()
            while after < end and not stop.is_set():
                upto = min(after + RANGE_EVENTS, end)
                with connection.begin():
                    reached = _fill_range(connection, group, stripe, after, upto, limits)
                counter.add((reached - after) * len(group))
                after = reached

    first = group[0]
    ends = (*first.starts[1:], first.target)
    with ThreadPoolExecutor(len(ends)) as pool:
        try:
            work = [pool.submit(fill_stripe, each, first.reached[each], end) for each, end in enumerate(ends)]
            for each in work:
                each.result()
        finally:
            stop.set()


def _fill_range(
    connection: sa.Connection, group: Sequence[Build], stripe: int, after: int, upto: int, limits: Sequence[int]
) -> int:
    superseded = group[0].superseded
    if superseded is None:
        raise ValueError(f"build {group[0].id} was not made to be filled")
    reached = insert_range(connection, [(each.model, each.table) for each in group], superseded, after, upto, limits)
    connection.exec_driver_sql(
        "UPDATE readmodel.build SET reached[%(stripe)s] = %(upto)s WHERE id = ANY(%(builds)s)",
        {"stripe": stripe + 1, "upto": reached, "builds": [made.id for made in group]},
    )
    return reached


def _finished(database_url: str, made: Build) -> Build:
    """The build with its indexes; the projectors feed it from now on."""
    with engine_for(database_url).begin() as connection:
        finished = build_tables.finish(connection, made, FOLLOWING)
        # A table that was just filled has no statistics, and its first readers would pay for that. A small sample
        # is enough until autovacuum takes a larger one.
        connection.exec_driver_sql("SET LOCAL default_statistics_target = 10")
        connection.exec_driver_sql(f"ANALYZE {made.table}")
        return finished
