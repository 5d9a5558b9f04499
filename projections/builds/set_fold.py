"""The set fold: SQL that makes a model's rows from the whole log, inserting them and never updating one.

It is written apart from the Python folds on purpose (rule: two folds agree): every rebuild, every `verify` and tests
with random histories compare the two. It only inserts, because an event counts only if it is the last of its stream.
The positions of events that are not the last are collected once, in a table that is small, since most streams have one
event. So ranges of the log are independent. Each range is read once into `range_event`, from which every model takes
its rows.

A model's `set_fold` reads `range_event AS e`, whose columns are those of the log, and two more: `is_last`, whether no
later event of the stream counts, and `facts`, those of the event's content. Where it reads more of the log, an event
`m` counts up to `(%(limits)s::bigint[])[m.partition + 1]`, the position at which its partition is to stand, and is the
last of its stream if its position is not in `<superseded>`.
"""

from collections.abc import Iterable, Sequence
from typing import LiteralString

import sqlalchemy as sa

from projections.model import Known, Model
from projections.statements import columns, statement

# A range's events must stay in memory, so both their number and the stored bytes of their facts are bounded.
RANGE_EVENTS = 25_000
RANGE_FACTS_BYTES = 16 * 1024 * 1024
_BUFFERS = "64MB"
# Each range must read its own pages of the log only: scanning all of them for each would be quadratic.
_PLANNING = ("enable_seqscan", "enable_bitmapscan", "enable_memoize", "jit")
_BY_INDEX = "; ".join(f"SET LOCAL {each} = off" for each in _PLANNING)
_AS_USUAL = "; ".join(f"RESET {each}" for each in _PLANNING)
_SUPERSEDED = "<superseded>"

_COLLECT: LiteralString = """
SELECT earlier.position FROM log.es_event AS later
  JOIN log.es_event AS earlier
    ON earlier.log_id = 0 AND earlier.stream = later.stream AND earlier.version = later.version - 1
 WHERE later.log_id = 0 AND later.position <= (%(limits)s::bigint[])[later.partition + 1]
   AND later.version > 1 AND later.type = ANY(%(types)s)
"""
_COPIED = (
    *("position", "recorded_at", "version", "partition", "stream", "key", "type", "actor", "request_id", "prev_ref"),
    *("ref", "content", "data"),
)
_RANGE_TABLE: LiteralString = """
CREATE TEMPORARY TABLE IF NOT EXISTS range_event AS
SELECT {columns}, true AS is_last, NULL::jsonb AS facts FROM log.es_event WITH NO DATA
"""
# Facts are looked up one by one: a plain join would be turned into a scan of all content.
_LOAD: LiteralString = """
INSERT INTO range_event
SELECT {columns}, e.is_last, e.facts FROM (
SELECT {columns}, s.position IS NULL AS is_last, c.facts,
       sum(coalesce(pg_column_size(c.facts), 0)) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING)
           - coalesce(pg_column_size(c.facts), 0) AS before
  FROM log.es_event AS e
  LEFT JOIN {superseded} AS s ON s.position = e.position AND s.position > %(after)s AND s.position <= %(upto)s
  LEFT JOIN LATERAL (
       SELECT k.facts FROM log.es_content AS k WHERE %(with_facts)s AND k.digest = e.content OFFSET 0) AS c ON true
 WHERE e.log_id = 0 AND e.position <= (%(limits)s::bigint[])[e.partition + 1]
   AND e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY(%(types)s)
) AS e WHERE e.before < %(facts_bytes)s
"""
# The range ends before the first event that no longer fitted.
_REACHED: LiteralString = """
SELECT coalesce((SELECT e.position - 1 FROM log.es_event AS e
                  WHERE e.log_id = 0 AND e.position <= (%(limits)s::bigint[])[e.partition + 1]
                    AND e.position > (SELECT coalesce(max(r.position), %(after)s) FROM range_event AS r)
                    AND e.position <= %(upto)s AND e.type = ANY(%(types)s)
                  ORDER BY e.position LIMIT 1), %(upto)s)
"""


def types_of(models: Iterable[Model]) -> list[str]:
    """All event types that these models take."""
    return sorted(frozenset[str]().union(*(model.types for model in models)))


def collect_superseded(
    connection: sa.Connection, models: Iterable[Model], name: str, limits: Sequence[int], *, temporary: bool = False
) -> None:
    """Make the table of events that later events of their stream replaced, for models that stand at `limits`."""
    # An unlogged table would be empty after a crash, and a resumed rebuild would take every event for the last.
    kind: LiteralString = "CREATE TEMPORARY TABLE" if temporary else "CREATE TABLE"
    query = statement(kind + " {name} AS" + _COLLECT, name=name)
    connection.exec_driver_sql(query, {"types": types_of(models), "limits": list(limits)})
    connection.exec_driver_sql(statement("CREATE UNIQUE INDEX ON {name} (position)", name=name))
    connection.exec_driver_sql(statement("ANALYZE {name}", name=name))


def begin(connection: sa.Connection) -> None:
    """Make the connection's own table for the events of a range. Call it before any temporary table was used."""
    connection.exec_driver_sql(f"SET temp_buffers = '{_BUFFERS}'")
    connection.exec_driver_sql(statement(_RANGE_TABLE, columns=_COPIED))


def insert_range(
    connection: sa.Connection,
    tables: Sequence[tuple[Model, sa.Table]],
    superseded: str,
    after: int,
    upto: int,
    limits: Sequence[int],
) -> int:
    """Insert the rows of each model that exist at `limits` because of the events of (after, upto].

    Answers the position that it reached, which is before `upto` if the events have very large facts.
    """
    models = [model for model, _ in tables]
    values = {
        "after": after,
        "upto": upto,
        "limits": list(limits),
        "types": types_of(models),
        "with_facts": any(model.known is not Known.NOTHING for model in models),
        "facts_bytes": RANGE_FACTS_BYTES,
    }
    load = statement(_LOAD, columns=columns(_COPIED, "e"), superseded=superseded)
    connection.exec_driver_sql("TRUNCATE range_event")
    connection.exec_driver_sql(_BY_INDEX)
    connection.exec_driver_sql(load, values)
    reached = int(connection.exec_driver_sql(_REACHED, values).scalar_one())
    for model, table in tables:
        select = model.set_fold.replace(_SUPERSEDED, superseded)
        connection.exec_driver_sql(
            statement("INSERT INTO {table} ({columns})", table=table, columns=model.columns) + select, values
        )
    connection.exec_driver_sql(_AS_USUAL)
    return reached
