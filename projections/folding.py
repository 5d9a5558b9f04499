"""Folding ranges of the log into a table by the Python fold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from domain.event import UnknownEvent, event_types
from eventstore.codec import EVENT_COLUMNS, recorded_from_row
from eventstore.types import Recorded
from projections.model import Key, Model, Rows, happened_of

_RANGE = f"""
SELECT {EVENT_COLUMNS}, {{facts}} FROM log.es_event AS e {{join}}
 WHERE e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY(%(types)s){{more}}
 ORDER BY e.position LIMIT %(limit)s
"""  # noqa: S608 - put together from constants; values go as parameters
_UNKNOWN = """
SELECT e.position, e.type FROM log.es_event AS e
 WHERE e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s AND NOT e.type = ANY(%(known)s)
 ORDER BY e.position LIMIT 1
"""
_FACTS = "SELECT c.digest, c.facts::text FROM log.es_content AS c WHERE c.digest = ANY(%(digests)s)"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def read_range(
    connection: sa.Connection,
    model: Model,
    after: int,
    upto: int,
    *,
    positions: Mapping[int, int] | None = None,
    keys: Sequence[str] | None = None,
    partition: int | None = None,
    limit: int | None = None,
) -> list[Recorded]:
    """The events of (after, upto] that the model takes, with their facts where it needs them.

    `positions` leaves out what is not past the position of its partition, `keys` all other keys, `partition` all
    others; at most `limit`. Raises UnknownEvent if the range holds an event of a type that this program does not know.
    """
    limits = {"after": after, "upto": upto, "partition": partition, "limit": limit}
    unknown = connection.exec_driver_sql(_UNKNOWN, {**limits, "known": sorted(event_types())}).first()
    if unknown is not None:
        raise UnknownEvent(f"event {unknown[0]} has the unknown type {unknown[1]!r}")
    query = _RANGE.format(
        facts="f.facts::text" if model.needs_facts else "NULL",
        join="LEFT JOIN log.es_content AS f ON f.digest = e.content" if model.needs_facts else "",
        more=("" if keys is None else " AND e.key = ANY(%(keys)s)")
        + ("" if partition is None else " AND e.partition = %(partition)s"),
    )
    rows = connection.exec_driver_sql(query, {**limits, "types": sorted(model.types), "keys": list(keys or ())})
    found = (recorded_from_row(row) for row in rows)
    return [each for each in found if positions is None or each.position > positions.get(each.partition, 0)]


def with_facts(connection: sa.Connection, events: Sequence[Recorded]) -> list[Recorded]:
    """The events of a feed, completed by what the log keeps beside them: content is part of it, never of the feed."""
    digests = sorted({each.content for each in events if each.content is not None})
    rows = connection.exec_driver_sql(_FACTS, {"digests": digests}) if digests else ()
    facts: dict[str | None, str] = {digest: text for digest, text in rows}  # noqa: C416 - rows are no pairs to mypy
    return [replace(each, facts=facts.get(each.content)) if each.content else each for each in events]


def fold_into(connection: sa.Connection, model: Model, table: sa.Table, events: Sequence[Recorded]) -> None:
    """Fold the events over the rows that stand in `table` and write what changed, in key order (S21)."""
    happened = [happened_of(each) for each in events]
    touched = list(dict.fromkeys(key for each in happened for key in model.touched(each)))
    rows: Rows = _load(connection, model, table, touched)
    before = dict(rows)
    for each in happened:
        model.apply(rows, each)
    changed = {key: row for key, row in rows.items() if row != before.get(key)}
    _write(connection, model, table, changed)


@cache
def _array_type(column_type: str) -> str:
    return column_type.replace(' COLLATE "C"', "") + "[]"


def _arrays(table: sa.Table, names: Sequence[str]) -> str:
    """The columns as parameters of unnest, in order: one array each, whatever the number of rows."""
    types = (table.c[name].type.compile(dialect=_DIALECT) for name in names)
    return ", ".join(f"%(c{place})s::{_array_type(each)}" for place, each in enumerate(types))


def _columns(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {f"c{place}": [row[place] for row in rows] for place in range(len(names))}


def _load(connection: sa.Connection, model: Model, table: sa.Table, keys: Sequence[Key]) -> dict[Key, Any]:
    if not keys:
        return {}
    names = model.key_columns
    wanted = ", ".join(f"t.{name}" for name in model.columns)
    same = " AND ".join(f"t.{name} = k.{name}" for name in names)
    rows = connection.exec_driver_sql(
        f"SELECT {wanted} FROM unnest({_arrays(table, names)}) AS k({', '.join(names)}) JOIN {table} AS t ON {same}",  # noqa: S608
        _columns(keys, names),
    )
    places = [model.columns.index(name) for name in names]
    return {tuple(row[place] for place in places): model.row(*row) for row in rows}


def _write(connection: sa.Connection, model: Model, table: sa.Table, changed: Mapping[Key, Any]) -> None:
    names, key_names = model.columns, model.key_columns
    standing = [[getattr(row, name) for name in names] for _, row in sorted(changed.items()) if row is not None]
    gone = [key for key, row in sorted(changed.items()) if row is None]
    if standing:
        update = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key_names)
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT * FROM unnest({_arrays(table, names)})"  # noqa: S608
            f" ON CONFLICT ({', '.join(key_names)}) DO UPDATE SET {update}",
            _columns(standing, names),
        )
    if gone:
        same = " AND ".join(f"t.{name} = k.{name}" for name in key_names)
        connection.exec_driver_sql(
            f"DELETE FROM {table} AS t USING unnest({_arrays(table, key_names)}) AS k({', '.join(key_names)})"  # noqa: S608
            f" WHERE {same}",
            _columns(gone, key_names),
        )
