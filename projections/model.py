"""What a read model is: a table, the event types it takes, and a pure fold that all its readers and writers share.

The same fold serves the projector, the overlay of a GET, verify and rebuild. It knows no SQL.
"""

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from domain import events as _declared  # noqa: F401 - decoding needs every event type declared
from domain.event import Event, decode
from domain.facts import Facts, facts_from_json

SCHEMA = "readmodel"
metadata = sa.MetaData(schema=SCHEMA)

Key = tuple[Any, ...]
Rows = MutableMapping[Key, Any]

checkpoint = sa.Table(
    "checkpoint",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("partition", sa.SmallInteger, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    postgresql_with={"fillfactor": "50"},
)


def name_column(name: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    """A column of names, compared as bytes (T1)."""
    return sa.Column(name, sa.Text(collation="C"), primary_key=primary_key, nullable=nullable)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as a fold sees it: decoded, with what the log wrote beside it."""

    position: int
    key: str
    recorded_at: datetime
    actor: str
    request_id: str
    prev_ref: str | None
    event: Event
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One read model. `row` is the data class of its rows; its fields are the table's columns.

    `touched` gives the keys of the rows that an event may change; `fold` changes them in `rows`, where None is a
    row that does not stand. `shape` changes with the table: a new shape is a new table, filled from the log.
    """

    name: str
    shape: int
    table: sa.Table
    row: type
    types: frozenset[str]
    touched: Callable[[Happened], Iterable[Key]]
    fold: Callable[[Rows, Happened], None]
    needs_facts: bool = False

    @property
    def id(self) -> str:
        """The name by which its checkpoint is kept: name and shape."""
        return f"{self.name}_s{self.shape}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the table's columns, in the order of the row's fields."""
        return tuple(each.name for each in fields(self.row))

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The names of the columns that make a row's key."""
        return tuple(each.name for each in self.table.primary_key.columns)

    def apply(self, rows: Rows, happened: Happened) -> None:
        """Fold one event if the model takes its type; every row that it may touch must be in `rows` or not stand."""
        if happened.event.TYPE in self.types:
            self.fold(rows, happened)


def happened_from(
    position: int,
    key: str,
    recorded_at: datetime,
    actor: str,
    request_id: str,
    prev_ref: str | None,
    event_type: str,
    schema_version: int,
    data: str,
    facts: str | None = None,
) -> Happened:
    """The event of a row of the log. Raises UnknownEvent for one that this program does not know: the reader stops."""
    return Happened(
        position,
        key,
        recorded_at,
        actor,
        request_id,
        prev_ref,
        decode(event_type, schema_version, data),
        None if facts is None else facts_from_json(facts),
    )
