"""Compares two tables by checksums of 256 buckets, and row by row where a bucket differs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from psycopg import sql

from eventstore.partition import partition_of
from projections.engine import build_tables
from projections.engine.build_tables import Build
from projections.engine.folding import fold_into, read_key
from projections.model import Model
from projections.statements import all_of, columns, statement

BUCKETS = 256
SAMPLES_MAX = 10
_PYTHON_EVENTS = 5_000


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a table and the expected one, at a position of the log.

    `buckets` of 256 differ; in them rows are `missing`, `unexpected` or `differing`. `samples` are a few of them:
    (what is wrong, columns as expected or found). `keys` are the repositories concerned.
    """

    name: str
    position: int
    total: int
    buckets: int = 0
    missing: int = 0
    unexpected: int = 0
    differing: int = 0
    samples: tuple[tuple[str, dict[str, Any]], ...] = ()
    keys: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """The number of wrong rows."""
        return self.missing + self.unexpected + self.differing

    @property
    def equal(self) -> bool:
        """True if nothing differs."""
        return self.rows == 0


def positions_of(connection: sa.Connection, build_id: str) -> dict[int, int]:
    """The checkpoint of a build."""
    table = build_tables.checkpoint
    rows = connection.execute(sa.select(table.c.partition, table.c.position).where(table.c.build == build_id))
    return {row.partition: row.position for row in rows}


def compare(
    connection: sa.Connection,
    model: Model,
    found: sa.Table,
    expected: sa.Table,
    position: int,
    without: Iterable[str] = (),
) -> Difference:
    """Compare `found` with `expected`, both with the model's columns, in the connection's snapshot.

    Rows of the repositories in `without` are left out.
    """
    sums, wanted = (_checksums(connection, model, table) for table in (found, expected))
    total = sum(count for count, _ in sums.values())
    differing = [each for each in range(BUCKETS) if sums.get(each) != wanted.get(each)]
    if not differing:
        return Difference(model.name, position, total)
    return _rows_of(
        connection, model, found, expected, Difference(model.name, position, total), differing, sorted(without)
    )


# A row's bucket is its repository's: the rows of one key are in one bucket.
_CHECKSUMS = """
SELECT hashtextextended(t.repository, 0) & {mask}, count(*), sum(hashtextextended(ROW({columns})::text, 0)::numeric)
  FROM {table} AS t GROUP BY 1
"""
_DIFFERING = """
SELECT CASE WHEN {found_key} IS NULL THEN 'missing' WHEN {expected_key} IS NULL THEN 'unexpected' ELSE 'differing' END,
       {found_columns}, {expected_columns}
  FROM (SELECT * FROM {found} AS t WHERE hashtextextended(t.repository, 0) & {mask} = %(bucket)s) AS f
  FULL JOIN (SELECT * FROM {expected} AS t WHERE hashtextextended(t.repository, 0) & {mask} = %(bucket)s) AS x
    ON {same_key}
 WHERE NOT ({same}) AND NOT coalesce(f.repository, x.repository) = ANY(%(without)s)
"""
_MASK = sql.Literal(BUCKETS - 1)
# If a table is wholly wrong, all rows differ, and they may not fit into memory.
_STREAMED = {"stream_results": True, "max_row_buffer": 1000}


def _checksums(connection: sa.Connection, model: Model, table: sa.Table) -> dict[int, tuple[int, Any]]:
    query = statement(_CHECKSUMS, mask=_MASK, columns=columns(model.columns, "t"), table=table)
    return {row[0]: (row[1], row[2]) for row in connection.exec_driver_sql(query)}


def _rows_of(
    connection: sa.Connection,
    model: Model,
    found: sa.Table,
    expected: sa.Table,
    difference: Difference,
    buckets: Sequence[int],
    without: list[str],
) -> Difference:
    query = statement(
        _DIFFERING,
        found=found,
        expected=expected,
        mask=_MASK,
        found_key=f"f.{model.key_columns[0]}",
        expected_key=f"x.{model.key_columns[0]}",
        found_columns=columns(model.columns, "f"),
        expected_columns=columns(model.columns, "x"),
        same_key=all_of("f.{name} = x.{name}", model.key_columns),
        same=all_of("f.{name} IS NOT DISTINCT FROM x.{name}", model.columns),
    )
    half = len(model.columns)
    counts = {"missing": 0, "unexpected": 0, "differing": 0}
    samples: list[tuple[str, dict[str, Any]]] = []
    repositories: set[str] = set()
    # Bucket by bucket: a join of two whole tables would need memory for both.
    for bucket in buckets:
        asked = {"bucket": bucket, "without": without}
        for kind, *values in connection.exec_driver_sql(query, asked, execution_options=_STREAMED):
            counts[kind] += 1
            shown = dict(zip(model.columns, values[half:] if kind == "missing" else values[:half], strict=True))
            repositories.add(shown["repository"])
            if len(samples) < SAMPLES_MAX:
                samples.append((kind, shown))
    return replace(
        difference,
        buckets=len(buckets),
        missing=counts["missing"],
        unexpected=counts["unexpected"],
        differing=counts["differing"],
        samples=tuple(samples),
        keys=frozenset(repositories),
    )


def expected_table(connection: sa.Connection, model: Model, name: str) -> sa.Table:
    """A temporary table of the model's columns and key."""
    table = sa.Table(
        name,
        sa.MetaData(),
        *(sa.Column(each.name, each.type, primary_key=each.primary_key) for each in model.table.columns),
        prefixes=["TEMPORARY"],
    )
    connection.execute(sa.schema.CreateTable(table))
    return table


# At random, and of the first rows, because a table of few rows may give none at random.
_SAMPLE = """
(SELECT r.repository FROM (SELECT DISTINCT t.repository FROM {table} AS t TABLESAMPLE BERNOULLI (1)) AS r
  ORDER BY random() LIMIT %(count)s)
UNION
(SELECT DISTINCT f.repository FROM (SELECT t.repository FROM {table} AS t LIMIT 50 * %(count)s) AS f LIMIT %(count)s)
"""


def sample_of_keys(connection: sa.Connection, made: Build, count: int) -> list[str]:
    """Some of the repositories in the build, at most two times `count`; none only if it has no rows."""
    rows = connection.exec_driver_sql(statement(_SAMPLE, table=made.table), {"count": count})
    return list(rows.scalars())


def _fold_key(connection: sa.Connection, model: Model, table: sa.Table, key: str, positions: Mapping[int, int]) -> None:
    """Fold the events of a key into an empty table, up to the position of its partition."""
    upto = positions[partition_of(key, len(positions))]
    after, more = 0, True
    while more:
        events, more = read_key(connection, model, key, after, upto, _PYTHON_EVENTS)
        fold_into(connection, model, table, events)
        after = events[-1].position if events else upto


_EITHER_ONLY = """
SELECT d.repository FROM (
    (SELECT {columns} FROM {made} WHERE repository = ANY(%(keys)s) EXCEPT SELECT {columns} FROM {python})
    UNION ALL
    (SELECT {columns} FROM {python} EXCEPT SELECT {columns} FROM {made} WHERE repository = ANY(%(keys)s))
) AS d
"""


def differs_from_python(connection: sa.Connection, made: Build, keys: Iterable[str]) -> set[str]:
    """The keys whose rows in the build differ from those that the Python fold makes of their events from nothing."""
    wanted = sorted(keys)
    with connection.begin_nested() if connection.in_transaction() else connection.begin():
        positions = positions_of(connection, made.id)
        table = expected_table(connection, made.model, f"python_{made.id}")
        for key in wanted:
            _fold_key(connection, made.model, table, key, positions)
        query = statement(_EITHER_ONLY, columns=made.model.columns, made=made.table, python=table)
        wrong = connection.exec_driver_sql(query, {"keys": wanted})
        found = {row[0] for row in wrong}
        connection.execute(sa.schema.DropTable(table))
    return found
