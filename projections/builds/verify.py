"""Compares live read models with the set fold of the whole log (rule: rebuilt equals live)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projections.all_models import models_named
from projections.builds import compare
from projections.builds.compare import Difference
from projections.builds.set_fold import RANGE_EVENTS, begin, collect_superseded, insert_range
from projections.engine import build_tables
from projections.engine.build_tables import Build
from projections.engine.setup import engine_for
from projections.model import Model
from projections.statements import statement

Progress = Callable[[int, int], None]


def verify(database_url: str, name: str = "all", progress: Progress | None = None) -> Iterator[Difference]:
    """Fold the models' events into temporary tables and compare, all in one snapshot.

    Models at the same position, as all are once the projector is level with the log, are folded from one reading.
    Parked keys are left out; `status` names them.
    """
    models = models_named(name)
    with engine_for(database_url).connect() as plain:
        connection = plain.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            live_builds = [_LiveBuild.of(connection, model) for model in models]
            begin(connection)
            found: dict[str, Difference] = {}
            for limits in dict.fromkeys(each.limits for each in live_builds):
                group = [each for each in live_builds if each.limits == limits]
                found |= {each.name: each for each in _verify(connection, group, progress)}
            yield from (found[model.name] for model in models)


@dataclass(frozen=True, slots=True)
class _LiveBuild:
    """A live build and the position of each of its partitions."""

    live: Build
    limits: tuple[int, ...]

    @classmethod
    def of(cls, connection: sa.Connection, model: Model) -> "_LiveBuild":
        live = build_tables.live(connection, model)
        positions = compare.positions_of(connection, live.id)
        return cls(live, tuple(positions[each] for each in sorted(positions)))


def _verify(connection: sa.Connection, group: Sequence[_LiveBuild], progress: Progress | None) -> Iterator[Difference]:
    limits = group[0].limits
    upto = max(limits)
    tables = [
        (each.live.model, compare.expected_table(connection, each.live.model, f"expected_{each.live.model.id}"))
        for each in group
    ]
    models = [model for model, _ in tables]
    superseded = "superseded_" + models[0].id
    collect_superseded(connection, models, superseded, limits, temporary=True)
    after = 0
    while after < upto:
        after = insert_range(connection, tables, superseded, after, min(after + RANGE_EVENTS, upto), limits)
        if progress is not None:
            progress(after, upto)
    connection.exec_driver_sql(statement("DROP TABLE {superseded}", superseded=superseded))
    for each, (model, expected) in zip(group, tables, strict=True):
        connection.exec_driver_sql(statement("ANALYZE {expected}", expected=expected))
        query = sa.select(build_tables.parked.c.key).where(build_tables.parked.c.build == each.live.id)
        parked = connection.execute(query).scalars().all()
        yield compare.compare(connection, model, each.live.table, expected, upto, parked)
        connection.exec_driver_sql(statement("DROP TABLE {expected}", expected=expected))
