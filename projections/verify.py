"""Whether the live read models are what the log says: the SQL fold of all of it, beside what the projector made."""

from collections.abc import Callable, Iterator

import sqlalchemy as sa

from projections import builds, compare
from projections.compare import Difference
from projections.model import Model
from projections.models import models_named
from projections.set_fold import RANGE_EVENTS, begin, collect_superseded, insert_range
from projections.setup import engine_for

Progress = Callable[[int, int], None]


def verify(database_url: str, name: str = "all", progress: Progress | None = None) -> Iterator[Difference]:
    """Fold each model's events into a temporary table and compare, in one snapshot a model.

    Parked keys are left out: `status` names them.
    """
    for model in models_named(name):
        with engine_for(database_url).connect() as plain:
            connection = plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield _verify(connection, model, progress)


def _verify(connection: sa.Connection, model: Model, progress: Progress | None) -> Difference:
    live = builds.live(connection, model)
    positions = compare.positions_of(connection, live.id)
    limits = [positions[each] for each in sorted(positions)]
    upto = max(limits)
    begin(connection)
    expected = compare.expected_table(connection, model, f"expected_{model.id}")
    superseded = f"superseded_{model.id}"
    collect_superseded(connection, [model], superseded, limits, temporary=True)
    for after in range(0, upto, RANGE_EVENTS):
        end = min(after + RANGE_EVENTS, upto)
        insert_range(connection, [(model, expected)], superseded, after, end, limits)
        if progress is not None:
            progress(end, upto)
    connection.exec_driver_sql(f"ANALYZE {expected}")
    query = sa.select(builds.parked.c.key).where(builds.parked.c.build == live.id)
    difference = compare.compare(
        connection, model, live.table, expected, upto, connection.execute(query).scalars().all()
    )
    connection.exec_driver_sql(f"DROP TABLE {expected}, {superseded}")
    return difference
