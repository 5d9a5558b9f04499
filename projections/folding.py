"""Folding ranges of the log into a table: what the projector, verify and rebuild have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from domain.event import UnknownEvent, event_types
from projections.model import Happened, Key, Model, Rows, happened_from

_COLUMNS = (
    "e.partition, e.position, e.key, e.recorded_at, e.actor, e.request_id, e.prev_ref, e.type, e.schema_version,"
    " e.data::text"
)
_RANGE = f"""
SELECT {_COLUMNS}, NULL FROM log.es_event AS e
 WHERE e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY(%(types)s)
 ORDER BY e.position
"""  # noqa: S608 - put together from constants; values go as parameters
_RANGE_WITH_FACTS = f"""
SELECT {_COLUMNS}, f.facts::text FROM log.es_event AS e LEFT JOIN log.es_content AS f ON f.digest = e.content
 WHERE e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY(%(types)s)
 ORDER BY e.position
"""  # noqa: S608 - put together from constants; values go as parameters
_UNKNOWN = """
SELECT e.position, e.type FROM log.es_event AS e
 WHERE e.log_id = 0 AND e.position > %(after)s AND e.position <= %(upto)s AND NOT e.type = ANY(%(known)s)
 ORDER BY e.position LIMIT 1
"""
_KEYS_AT_ONCE = 1000


def read_range(
    connection: sa.Connection, model: Model, after: int, upto: int, positions: Mapping[int, int] | None = None
) -> list[Happened]:
    """The events of (after, upto] that the model takes and, where given, that are past `positions` of their partition.

    Raises UnknownEvent if the range holds an event of a type that this program does not know.
    """
    limits = {"after": after, "upto": upto}
    unknown = connection.exec_driver_sql(_UNKNOWN, {**limits, "known": sorted(event_types())}).first()
    if unknown is not None:
        raise UnknownEvent(f"event {unknown[0]} has the unknown type {unknown[1]!r}")
    query = _RANGE_WITH_FACTS if model.needs_facts else _RANGE
    rows = connection.exec_driver_sql(query, {**limits, "types": sorted(model.types)})
    return [happened_from(*row[1:]) for row in rows if positions is None or row[1] > positions.get(row[0], 0)]


def fold_into(connection: sa.Connection, model: Model, table: sa.Table, events: Sequence[Happened]) -> None:
    """Fold the events over the rows that stand in `table` and write what changed, in key order (S21)."""
    touched = list(dict.fromkeys(key for each in events for key in model.touched(each)))
    rows: Rows = _load(connection, model, table, touched)
    before = dict(rows)
    for each in events:
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
