"""The second fold: a model's rows from the whole log by sets, in SQL, inserted and never updated.

Written apart from the Python folds on purpose: the two are compared on every rebuild, on every `verify` and on random
histories by tests. What makes it insert-only is that an event counts only if it is the last of its stream, which one
probe of an index tells; so ranges of the log are independent of each other, and short.

A model's `set_fold` reads `log.es_event AS e` and may use, by `str.format` names made here: {in_range} for the events
to take and {is_last} for "no later event of the stream".
"""

import sqlalchemy as sa

from projections.model import Model

RANGE_EVENTS = 100_000
_BY_INDEX = "; ".join(
    f"SET LOCAL {each} = off"
    for each in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "jit")
)

# `limits` is the position up to which the model is to stand, for each partition.
IN_RANGE = (
    "e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s"
    " AND e.position <= (%(limits)s::bigint[])[e.partition + 1]"
)
IS_LAST = (
    "NOT EXISTS (SELECT FROM log.es_event AS later WHERE later.log_id = 0 AND later.stream = {event}.stream"
    " AND later.version = {event}.version + 1 AND later.position <= (%(limits)s::bigint[])[later.partition + 1])"
)


def set_fold(select: str) -> str:
    """The SQL of a model, with the names of this module put in."""
    return select.format(in_range=IN_RANGE, is_last=IS_LAST.format(event="e"), also_is_last=IS_LAST.format(event="m"))


def insert_range(
    connection: sa.Connection, model: Model, table: sa.Table, after: int, upto: int, limits: list[int]
) -> int:
    """Insert the rows that the events of (after, upto] say are standing at `limits`; answers how many."""
    columns = ", ".join(model.columns)
    name = f"{table.schema}.{table.name}" if table.schema else table.name
    statement = f"INSERT INTO {name} ({columns})\n{model.set_fold}"
    # Each range reads its own pages and probes for the rest: scanning or hashing the whole log each time is quadratic.
    connection.exec_driver_sql(_BY_INDEX)
    done = connection.exec_driver_sql(statement, {"after": after, "upto": upto, "limits": limits})
    return done.rowcount
