"""The second fold: a model's rows from the whole log by sets, in SQL, inserted and never updated.

Written apart from the Python folds on purpose: the two are compared on every rebuild, on every `verify` and on random
histories by tests. What makes it insert-only is that an event counts only if it is the last of its stream: those that
are not are collected once, in a small table (most streams have one event). So ranges of the log are independent.

A model's `set_fold` reads `log.es_event AS e` and may use, by `str.format` names made here: {in_range} for the events
to take, {is_last} for "no later event of the stream" and {also_is_last} for the same of another event `m`.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from projections.model import Model
from projections.statements import statement

RANGE_EVENTS = 100_000
# Each range reads its own pages of the log and no others: scanning all of them each time is quadratic.
_BY_INDEX = "; ".join(f"SET LOCAL {each} = off" for each in ("enable_seqscan", "enable_bitmapscan", "jit"))

# `limits` is the position up to which the model is to stand, for each partition.
IN_RANGE = (
    "e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s"
    " AND e.position <= (%(limits)s::bigint[])[e.partition + 1]"
)
_SUPERSEDED = "<superseded>"
IS_LAST = (
    f"NOT EXISTS (SELECT FROM {_SUPERSEDED} AS s WHERE s.stream = {{event}}.stream AND s.version = {{event}}.version)"
)
_COLLECT = """
CREATE {kind} TABLE {name} AS
SELECT later.stream, later.version - 1 AS version FROM log.es_event AS later
 WHERE later.log_id = 0 AND later.version > 1 AND later.type = ANY(%(types)s)
   AND later.position <= (%(limits)s::bigint[])[later.partition + 1]
"""


def set_fold(select: str) -> str:
    """The SQL of a model, with the names of this module put in."""
    return select.format(in_range=IN_RANGE, is_last=IS_LAST.format(event="e"), also_is_last=IS_LAST.format(event="m"))


def collect_superseded(
    connection: sa.Connection, model: Model, name: str, limits: Sequence[int], *, temporary: bool = False
) -> None:
    """Make the table of events that later ones of their stream have replaced, as the model stands at `limits`."""
    statement = _COLLECT.format(kind="TEMPORARY" if temporary else "UNLOGGED", name=name)
    connection.exec_driver_sql(statement, {"types": sorted(model.types), "limits": list(limits)})
    connection.exec_driver_sql(f"CREATE INDEX ON {name} (stream, version)")
    connection.exec_driver_sql(f"ANALYZE {name}")


def insert_range(
    connection: sa.Connection,
    model: Model,
    table: sa.Table,
    superseded: str,
    after: int,
    upto: int,
    limits: Sequence[int],
) -> int:
    """Insert the rows that the events of (after, upto] say are standing at `limits`; answers how many."""
    select = model.set_fold.replace(_SUPERSEDED, superseded)
    connection.exec_driver_sql(_BY_INDEX)
    done = connection.exec_driver_sql(
        statement("INSERT INTO {table} ({columns})", table=table, columns=model.columns) + select,
        {"after": after, "upto": upto, "limits": list(limits)},
    )
    return done.rowcount
