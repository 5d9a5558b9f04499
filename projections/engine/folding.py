"""Folds ranges of the log into a table by the Python fold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, LiteralString

import sqlalchemy as sa
from psycopg import sql

from domain.event import UnknownEvent
from domain.events import event_types
from eventstore.codec import EVENT_COLUMNS, recorded_from_row
from eventstore.types import Recorded
from projections.facts_sql import facts_known, weight
from projections.model import Key, Known, Model, Rows, happened_of
from projections.statements import all_of, columns, statement

# The most references in memory at a time; one event may have more.
CHUNK_REFERENCES = 10_000
# The most that one transaction folds; one event may have more.
TRANSACTION_REFERENCES = 50_000
# Contents are asked for in parts that grow by this factor up to so many. If they are very large, only few are of use at
# a time.
_ASKED_FIRST, _ASKED_MORE, _ASKED_MAX = 16, 4, 500

# Each partition is read by its own index, from its own position (rule: costs of what is asked for). Only types that we
# know and the model does not take are left out, so types that we do not know are found in the same reading.
_RANGE = f"""
SELECT {EVENT_COLUMNS} FROM unnest(%(partitions)s::smallint[], %(positions)s::bigint[]) AS p(partition, position)
 CROSS JOIN LATERAL (
       SELECT * FROM log.es_event AS l
        WHERE l.log_id = 0 AND l.partition = p.partition AND l.position > greatest(p.position, %(after)s)
          AND l.position <= %(upto)s AND NOT l.type = ANY(%(others)s)
        ORDER BY l.position LIMIT %(limit)s) AS e
 ORDER BY e.position LIMIT %(limit)s
"""  # noqa: S608 - put together from constants; values go as parameters
# Bounds of key and position together, and this order, have one index. With `key =` the planner may take a reading of
# the whole log in the order of positions for cheaper, of a key that it believes to be everywhere.
_OF_KEY = f"""
SELECT {EVENT_COLUMNS} FROM log.es_event AS e
 WHERE e.log_id = 0 AND (e.key, e.position) > (%(key)s, %(after)s::bigint)
   AND (e.key, e.position) <= (%(key)s, %(upto)s::bigint) AND NOT e.type = ANY(%(others)s)
 ORDER BY e.key, e.position LIMIT %(limit)s
"""  # noqa: S608 - put together from constants; values go as parameters
# Brings as many of the digests, in their order, as fit; the first one in any case.
_FACTS = """
SELECT s.digest, {known}
  FROM (SELECT u.digest, f.facts, sum({weight}) OVER (ORDER BY u.place) - {weight} AS before
          FROM unnest(%(digests)s::text[]) WITH ORDINALITY AS u(digest, place)
          LEFT JOIN log.es_content AS f ON f.digest = u.digest) AS s
 WHERE s.before < %(most)s
"""
_WEIGHTS = f"""
SELECT f.digest, {weight(Known.REFERENCES, "f")} FROM log.es_content AS f WHERE f.digest = ANY(%(digests)s)
"""  # noqa: S608 - put together from constants; values go as parameters
# The names that Postgres has for the types of columns.
_TYPES: dict[type, LiteralString] = {
    sa.Text: "text",
    sa.BigInteger: "bigint",
    sa.Integer: "integer",
    sa.TIMESTAMP: "timestamptz",
}


def read_range(
    connection: sa.Connection,
    model: Model,
    after: int,
    upto: int,
    positions: Mapping[int, int],
    limit: int | None = None,
) -> list[Recorded]:
    """The events of (after, upto] that the model takes, in order, at most `limit`.

    Of the partitions in `positions` only, and there past that position. Raises UnknownEvent if there is an event of a
    type that this program does not know.
    """
    places = {"partitions": list(positions), "positions": list(positions.values())}
    return _read(connection, model, _RANGE, {"after": after, "upto": upto, "limit": limit, **places})


def read_key(
    connection: sa.Connection, model: Model, key: str, after: int, upto: int, limit: int
) -> tuple[list[Recorded], bool]:
    """At most `limit` events of a key in (after, upto] that the model takes, and True if there are more of them.

    Raises as `read_range` does.
    """
    events = _read(connection, model, _OF_KEY, {"after": after, "upto": upto, "limit": limit + 1, "key": key})
    return events[:limit], len(events) > limit


def _read(connection: sa.Connection, model: Model, query: str, asked: dict[str, Any]) -> list[Recorded]:
    known = event_types().keys()
    rows = connection.exec_driver_sql(query, {**asked, "others": sorted(known - model.types)})
    events = [recorded_from_row(row) for row in rows]
    for each in events:
        if each.type not in known:
            raise UnknownEvent(f"event {each.position} has the unknown type {each.type!r}")
    return events


def read_batch(
    connection: sa.Connection,
    model: Model,
    after: int,
    upto: int,
    positions: Mapping[int, int],
    limit: int | None = None,
) -> tuple[list[Recorded], int]:
    """Read a range as far as one transaction should fold it; answers the position up to which it is complete."""
    events = read_range(connection, model, after, upto, positions, limit)
    if limit is not None and len(events) == limit:
        upto = events[-1].position
    fit = fitting(connection, model, events)
    return (events, upto) if fit == len(events) else (events[:fit], events[fit].position - 1)


def fitting(connection: sa.Connection, model: Model, events: Sequence[Recorded]) -> int:
    """The number of events, from the first on, that one transaction should fold, to bound its memory and its time.

    It is one at least. Events that the model does not take weigh nothing.
    """
    if model.known is not Known.REFERENCES:
        return len(events)
    weights: dict[str | None, int] = {None: 0}
    total, ask = 0, _ASKED_FIRST
    for number, each in enumerate(events):
        if each.type not in model.types:
            continue
        if each.content not in weights:
            asked = [other.content for other in events[number:] if other.content not in weights][:ask]
            found = connection.exec_driver_sql(_WEIGHTS, {"digests": asked})
            weights |= dict.fromkeys(asked, 0) | {row[0]: row[1] for row in found}
            ask = min(_ASKED_MORE * ask, _ASKED_MAX)
        total += weights[each.content]
        if total > TRANSACTION_REFERENCES and number > 0:
            return number
    return len(events)


def fold_into(connection: sa.Connection, model: Model, table: sa.Table, events: Sequence[Recorded]) -> None:
    """Fold the events over the rows in `table` and write the changed ones, in key order.

    The facts that the log keeps beside events are brought a bounded part at a time.
    """
    for some in _with_facts(connection, model, events):
        happened = [happened_of(each) for each in some]
        touched = list(dict.fromkeys(key for each in happened for key in model.keys_of(each)))
        rows: Rows = _load(connection, model, table, touched)
        before = dict(rows)
        for each in happened:
            model.apply(rows, each)
        changed = {key: row for key, row in rows.items() if row != before.get(key)}
        _write(connection, model, table, changed)


def _with_facts(connection: sa.Connection, model: Model, events: Sequence[Recorded]) -> Iterator[Sequence[Recorded]]:
    """The events in parts, completed by as much of their facts as the model looks at."""
    if model.known is Known.NOTHING:
        yield events
        return
    query = _FACTS.format(known=facts_known(model.known, "s"), weight=weight(model.known, "f"))
    start, ask = 0, _ASKED_FIRST
    while start < len(events):
        wanted = list(dict.fromkeys(each.content for each in events[start:] if each.content))[:ask]
        rows = connection.exec_driver_sql(query, {"digests": wanted, "most": CHUNK_REFERENCES}) if wanted else ()
        facts = {row[0]: row[1] for row in rows}
        end = start
        while end < len(events) and (events[end].content is None or events[end].content in facts):
            end += 1
        yield [replace(each, facts=facts.get(each.content or "")) for each in events[start:end]]
        start, ask = end, min(_ASKED_MORE * max(len(facts), 1), _ASKED_MAX)


_LOAD = "SELECT {columns} FROM unnest({arrays}) AS k({key}) JOIN {table} AS t ON {same}"
_UPSERT = """
INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays}) ON CONFLICT ({key}) DO UPDATE SET {update}
"""
_DELETE = "DELETE FROM {table} AS t USING unnest({arrays}) AS k({key}) WHERE {same}"


@dataclass(frozen=True, slots=True)
class _Statements:
    """The statements for rows of one table. They take whole columns as arrays, whatever the number of rows."""

    load: str
    upsert: str
    delete: str


@cache
def _statements(table: sa.Table) -> _Statements:
    names = [each.name for each in table.columns]
    key = [each.name for each in table.primary_key.columns]
    same = all_of("t.{name} = k.{name}", key)
    update = sql.SQL(", ").join(
        sql.SQL("{name} = excluded.{name}").format(name=sql.Identifier(each)) for each in names if each not in key
    )
    of_keys = _arrays(table, key)
    return _Statements(
        statement(_LOAD, columns=columns(names, "t"), arrays=of_keys, key=key, table=table, same=same),
        statement(_UPSERT, table=table, columns=names, arrays=_arrays(table, names), key=key, update=update),
        statement(_DELETE, table=table, arrays=of_keys, key=key, same=same),
    )


def _arrays(table: sa.Table, names: Sequence[str]) -> sql.Composable:
    """The columns as parameters c0, c1 … of unnest."""
    return sql.SQL(", ").join(
        sql.SQL("CAST({value} AS {type}[])").format(
            value=sql.Placeholder(f"c{place}"), type=sql.SQL(_TYPES[type(table.c[name].type)])
        )
        for place, name in enumerate(names)
    )


def _parameters(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {f"c{place}": [row[place] for row in rows] for place in range(len(names))}


def _load(connection: sa.Connection, model: Model, table: sa.Table, keys: Sequence[Key]) -> dict[Key, Any]:
    if not keys:
        return {}
    rows = connection.exec_driver_sql(_statements(table).load, _parameters(keys, model.key_columns))
    places = [model.columns.index(name) for name in model.key_columns]
    return {tuple(row[place] for place in places): model.row(*row) for row in rows}


def _write(connection: sa.Connection, model: Model, table: sa.Table, changed: Mapping[Key, Any]) -> None:
    names = model.columns
    locked = [[getattr(row, name) for name in names] for _, row in sorted(changed.items()) if row is not None]
    gone = [key for key, row in sorted(changed.items()) if row is None]
    if locked:
        connection.exec_driver_sql(_statements(table).upsert, _parameters(locked, names))
    if gone:
        connection.exec_driver_sql(_statements(table).delete, _parameters(gone, model.key_columns))
