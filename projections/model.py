"""A read model: a table, the event types that it takes, and a pure fold that all its readers and writers share.

The same fold serves the projector and the overlay of a GET. It knows no SQL. Beside it stands the set fold, one SELECT
of the same meaning over the whole log, which rebuilds the model and is compared with the first (rule: two folds agree).
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any

import sqlalchemy as sa

from domain.event import Event, UnknownEvent
from domain.events import decode
from domain.facts import Facts, facts_from_json
from eventstore.types import Recorded

# These errors say that the machine is in trouble, and nothing about the event that was being folded. RecursionError is
# not among them: a fold is always called at the same depth, so the same event raises it every time.
MACHINE_FAULTS = (MemoryError, OSError)

Key = tuple[Any, ...]
Rows = MutableMapping[Key, Any]


class Known(Enum):
    """The part of the facts of an event's content that a fold looks at (see facts_sql)."""

    NOTHING = "nothing"
    BRIEF = "brief"  # all but the list of what the manifest names, of which only the config stays
    REFERENCES = "references"  # only the list of what it names, as role and digest


class FoldFailed(Exception):
    """A fold cannot take an event: the key is parked, and answers that depend on it are 503 (rule: parked keys)."""

    def __init__(self, model: str, key: str, position: int) -> None:
        super().__init__(f"read model {model} cannot take the event at position {position} of {key}")
        self.model = model
        self.key = key
        self.position = position


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as a fold sees it: decoded, with the metadata that the log keeps beside it."""

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
    row that does not exist. Each row belongs to one event key, the repository. `shape` changes with the table: a new
    shape is a new table, filled from the log.

    `set_fold` is SQL of the form SELECT columns FROM … WHERE …, in the order of the row's fields: see `set_fold.py`
    for the names it may use.
    """

    name: str
    shape: int
    table: sa.Table
    row: type
    types: frozenset[str]
    touched: Callable[[Happened], Iterable[Key]]
    fold: Callable[[Rows, Happened], None]
    set_fold: str
    known: Known = Known.NOTHING

    @property
    def id(self) -> str:
        """The name by which readers ask for it: name and shape."""
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
        """Fold one event if the model takes its type; every row that it may touch must be in `rows`, if it exists.

        Raises FoldFailed from any error of the fold, but lets MACHINE_FAULTS pass.
        """
        if happened.event.TYPE not in self.types:
            return
        with self._blaming(happened):
            self.fold(rows, happened)

    def keys_of(self, happened: Happened) -> tuple[Key, ...]:
        """The keys of the rows that the event may change; raises as `apply` does."""
        with self._blaming(happened):
            return tuple(self.touched(happened))

    @contextmanager
    def _blaming(self, happened: Happened) -> Iterator[None]:
        try:
            yield
        except MACHINE_FAULTS:
            raise
        except Exception as problem:
            raise FoldFailed(self.name, happened.key, happened.position) from problem


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
    """The event of a row of the log.

    Raises UnknownEvent for a type or version that this program does not know, which stops the reader. Raises FoldFailed
    for data that do not fit their type, which parks the key.
    """
    try:
        event = decode(event_type, schema_version, data)
        known = None if facts is None else facts_from_json(facts)
    except UnknownEvent:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise FoldFailed("any", key, position) from problem
    return Happened(position, key, recorded_at, actor, request_id, prev_ref, event, known)


def happened_of(recorded: Recorded) -> Happened:
    """The event that the store or the feed gave; raises as `happened_from` does."""
    return happened_from(
        recorded.position,
        recorded.key,
        recorded.recorded_at,
        recorded.actor,
        recorded.request_id,
        recorded.prev_ref,
        recorded.type,
        recorded.schema_version,
        recorded.data,
        recorded.facts,
    )
