"""Folding ranges of the log into a table by the Python fold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

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
_KEYS_AT_ONCE = 1000


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


def _load(connection: sa.Connection, model: Model, table: sa.Table, keys: Sequence[Key]) -> dict[Key, Any]:
    loaded: dict[Key, Any] = {}
    key_columns = [table.c[name] for name in model.key_columns]
    columns = [table.c[name] for name in model.columns]
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        query = sa.select(*columns).where(sa.tuple_(*key_columns).in_(some))
        for values in connection.execute(query):
            row = model.row(*values)
            loaded[tuple(getattr(row, name) for name in model.key_columns)] = row
    return loaded


def _write(connection: sa.Connection, model: Model, table: sa.Table, changed: Mapping[Key, Any]) -> None:
    standing = [(key, row) for key, row in sorted(changed.items()) if row is not None]
    gone = [key for key, row in sorted(changed.items()) if row is None]
    if standing:
        statement = insert(table)
        update = {name: statement.excluded[name] for name in model.columns if name not in model.key_columns}
        upsert = statement.on_conflict_do_update(index_elements=list(model.key_columns), set_=update)
        connection.execute(upsert, [dict(zip(model.columns, astuple(row), strict=True)) for _, row in standing])
    if gone:
        conditions = [table.c[name] == sa.bindparam(f"k_{name}") for name in model.key_columns]
        parameters = [_parameters(model.key_columns, key) for key in gone]
        connection.execute(sa.delete(table).where(*conditions), parameters)


def _parameters(names: Iterable[str], key: Key) -> dict[str, Any]:
    return {f"k_{name}": value for name, value in zip(names, key, strict=True)}
