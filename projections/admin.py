"""What an operator asks of read models: where they stand, whether they are right, and to fold them again."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from projections.folding import fold_into, read_range
from projections.model import Model, checkpoint
from projections.models import MODELS, models_named
from projections.setup import engine_for

RANGE_EVENTS = 5000
SAMPLES_MAX = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model stands at `position`; `lag` events of the log are not folded into it yet."""

    name: str
    position: int
    lag: int


@dataclass(frozen=True, slots=True)
class Status:
    """The position of the log's last event, and every model."""

    head: int
    models: tuple[ModelStatus, ...]


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """How a model differs from a fold of the log from nothing, up to the model's own position.

    `samples` are a few differing rows: (what is wrong, key, columns as expected or found).
    """

    name: str
    position: int
    rows: int
    missing: int
    unexpected: int
    differing: int
    samples: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.unexpected or self.differing)


def status(database_url: str) -> Status:
    """Where the log and every model stand."""
    with engine_for(database_url).connect() as connection:
        rows = connection.execute(
            sa.select(checkpoint.c.model, sa.func.min(checkpoint.c.position)).group_by(checkpoint.c.model)
        )
        positions = {name: int(position) for name, position in rows}
        head = _head(connection)
    models = tuple(
        ModelStatus(model.name, positions.get(model.id, 0), max(0, head - positions.get(model.id, 0)))
        for model in MODELS
    )
    return Status(head, models)


def wait_until(database_url: str, position: int, timeout_s: float = 30.0) -> bool:
    """Wait until every model has folded the event at `position`; False if they have not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if all(each.position >= position for each in status(database_url).models):
            return True
        time.sleep(0.01)
    return False


def verify(database_url: str, name: str = "all", progress: Progress | None = None) -> Iterator[ModelDifference]:
    """Fold each model's events from nothing into a temporary table and compare, in one snapshot a model."""
    for model in models_named(name):
        with engine_for(database_url).connect() as plain:
            connection = plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield _verify(connection, model, progress)


def rebuild(database_url: str, name: str = "all", progress: Progress | None = None) -> Iterator[tuple[str, int]]:
    """Delete each model's rows and fold them again in one transaction; answers (name, events folded up to).

    Reads go on over the old rows until the new ones are committed. DELETE, not TRUNCATE: readers of older snapshots
    would see nothing, and all reads would wait (S15).
    """
    for model in models_named(name):
        with engine_for(database_url).begin() as connection:
            positions = _positions(connection, model, lock=True)
            connection.execute(sa.delete(model.table))
            upto = max(positions.values())
            _fold_all(connection, model, model.table, upto, progress)
            connection.execute(sa.update(checkpoint).where(checkpoint.c.model == model.id).values(position=upto))
        yield model.name, upto


def _head(connection: sa.Connection) -> int:
    return int(
        connection.exec_driver_sql(
            "SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0"
        ).scalar_one()
    )


def _positions(connection: sa.Connection, model: Model, *, lock: bool = False) -> dict[int, int]:
    query = sa.select(checkpoint.c.partition, checkpoint.c.position).where(checkpoint.c.model == model.id)
    rows = connection.execute(query.order_by(checkpoint.c.partition).with_for_update() if lock else query)
    return {row.partition: row.position for row in rows}


def _fold_all(connection: sa.Connection, model: Model, table: sa.Table, upto: int, progress: Progress | None) -> None:
    for after in range(0, upto, RANGE_EVENTS):
        end = min(after + RANGE_EVENTS, upto)
        fold_into(connection, model, table, read_range(connection, model, after, end))
        if progress is not None:
            progress(end, upto)


def _verify(connection: sa.Connection, model: Model, progress: Progress | None) -> ModelDifference:
    expected = sa.Table(
        f"expected_{model.id}",
        sa.MetaData(),
        *(sa.Column(each.name, each.type, primary_key=each.primary_key) for each in model.table.columns),
        prefixes=["TEMPORARY"],
    )
    connection.execute(sa.schema.CreateTable(expected))
    positions = _positions(connection, model)
    upto = max(positions.values())
    _fold_all(connection, model, expected, upto, progress)
    difference = _compare(connection, model, expected, upto)
    connection.execute(sa.schema.DropTable(expected))
    return difference


def _compare(connection: sa.Connection, model: Model, expected: sa.Table, upto: int) -> ModelDifference:
    columns = [model.table.c[name] for name in model.columns]
    same = [expected.c[name] for name in model.columns]
    keys = sa.and_(*(model.table.c[name] == expected.c[name] for name in model.key_columns))
    first = model.key_columns[0]
    differs = sa.or_(*(a.is_distinct_from(b) for a, b in zip(columns, same, strict=True)))
    joined = sa.join(model.table, expected, keys, full=True)
    what = sa.case(
        (model.table.c[first].is_(None), "missing"),
        (expected.c[first].is_(None), "unexpected"),
        else_="differing",
    )
    query = sa.select(what, *columns, *same).select_from(joined).where(differs)
    counts = {"missing": 0, "unexpected": 0, "differing": 0}
    samples: list[tuple[str, dict[str, Any]]] = []
    for kind, *values in connection.execute(query):
        counts[kind] += 1
        if len(samples) < SAMPLES_MAX:
            half = len(model.columns)
            shown = values[half:] if kind == "missing" else values[:half]
            samples.append((kind, dict(zip(model.columns, shown, strict=True))))
    rows = connection.execute(sa.select(sa.func.count()).select_from(model.table)).scalar_one()
    return ModelDifference(
        model.name, upto, rows, counts["missing"], counts["unexpected"], counts["differing"], tuple(samples)
    )
