"""The second fold: a model's rows from the whole log by sets, in SQL, inserted and never updated.

Written apart from the Python folds on purpose: the two are compared on every rebuild, on every `verify` and on random
histories by tests. What makes it insert-only is that an event counts only if it is the last of its stream: the
positions of those that are not are collected once, in a small table (most streams have one event). So ranges of the
log are independent, and each is read once, whatever the number of models: into `range_event`, from which every model
takes its rows.

A model's `set_fold` reads `range_event AS e`, whose columns are those of the log, and two more:
`is_last`, whether no later event of the stream counts, and `facts`, those of the event's content. What else of the log
it reads it bounds by `log_event("m")`.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from projections.model import Model
from projections.statements import statement

# Small enough that a range's events stay in memory.
RANGE_EVENTS = 25_000
_BUFFERS = "64MB"
# Each range reads its own pages of the log and no others: scanning all of them each time is quadratic.
_BY_INDEX = "; ".join(
    f"SET LOCAL {each} = off" for each in ("enable_seqscan", "enable_bitmapscan", "enable_memoize", "jit")
)
_SUPERSEDED = "<superseded>"
# `limits` is the position up to which the models are to stand, for each partition.
_WITHIN = "{event}.log_id = 0 AND {event}.position <= (%(limits)s::bigint[])[{event}.partition + 1]"

_COLLECT = f"""
CREATE {{kind}} TABLE {{name}} AS
SELECT earlier.position FROM log.es_event AS later
  JOIN log.es_event AS earlier
    ON earlier.log_id = 0 AND earlier.stream = later.stream AND earlier.version = later.version - 1
 WHERE {_WITHIN.format(event="later")} AND later.version > 1 AND later.type = ANY(%(types)s)
"""  # noqa: S608 - put together from constants; values go as parameters
_COPIED = (
    "position, recorded_at, version, partition, stream, key, type, actor, request_id, prev_ref, ref, content, data"
)
_RANGE_TABLE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS range_event AS
SELECT {_COPIED}, true AS is_last, NULL::jsonb AS facts FROM log.es_event WITH NO DATA
"""  # noqa: S608 - put together from constants
_FACTS = """
  LEFT JOIN LATERAL (SELECT k.facts FROM log.es_content AS k WHERE k.digest = e.content OFFSET 0) AS c ON true"""
_LOAD = f"""
INSERT INTO range_event
SELECT {", ".join(f"e.{name}" for name in _COPIED.split(", "))}, s.position IS NULL, {{facts}}
  FROM log.es_event AS e
  LEFT JOIN {{superseded}} AS s ON s.position = e.position AND s.position > %(after)s AND s.position <= %(upto)s{{join}}
 WHERE {_WITHIN.format(event="e")} AND e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY(%(types)s)
"""  # noqa: S608 - put together from constants; values go as parameters


def log_event(event: str) -> str:
    """The condition that an alias of `log.es_event` counts and is the last of its stream."""
    return (
        f"{_WITHIN.format(event=event)} AND NOT EXISTS ("
        f"SELECT FROM {_SUPERSEDED} AS s WHERE s.position = {event}.position)"
    )


def types_of(models: Iterable[Model]) -> list[str]:
    """All types of events that these models take."""
    return sorted(frozenset[str]().union(*(model.types for model in models)))


def collect_superseded(
    connection: sa.Connection, models: Iterable[Model], name: str, limits: Sequence[int], *, temporary: bool = False
) -> None:
    """Make the table of events that later ones of their stream have replaced, for models that stand at `limits`."""
    # Never unlogged: a crash would empty it, and a rebuild that goes on would take every event for the last.
    query = _COLLECT.format(kind="TEMPORARY" if temporary else "", name=name)
    connection.exec_driver_sql(query, {"types": types_of(models), "limits": list(limits)})
    connection.exec_driver_sql(f"CREATE UNIQUE INDEX ON {name} (position)")
    connection.exec_driver_sql(f"ANALYZE {name}")


def begin(connection: sa.Connection) -> None:
    """Make the connection's own table for the events of a range; to be called before it has used temporary tables."""
    connection.exec_driver_sql(f"SET temp_buffers = '{_BUFFERS}'")
    connection.exec_driver_sql(_RANGE_TABLE)


def insert_range(
    connection: sa.Connection,
    tables: Sequence[tuple[Model, sa.Table]],
    superseded: str,
    after: int,
    upto: int,
    limits: Sequence[int],
) -> None:
    """Insert the rows of each model that the events of (after, upto] say are standing at `limits`."""
    models = [model for model, _ in tables]
    with_facts = any(model.needs_facts for model in models)
    load = _LOAD.format(
        superseded=superseded, facts="c.facts" if with_facts else "NULL", join=_FACTS if with_facts else ""
    )
    values = {"after": after, "upto": upto, "limits": list(limits), "types": types_of(models)}
    connection.exec_driver_sql("TRUNCATE range_event")
    connection.exec_driver_sql(_BY_INDEX)
    connection.exec_driver_sql(load, values)
    for model, table in tables:
        select = model.set_fold.replace(_SUPERSEDED, superseded)
        connection.exec_driver_sql(
            statement("INSERT INTO {table} ({columns})", table=table, columns=model.columns) + select, values
        )
