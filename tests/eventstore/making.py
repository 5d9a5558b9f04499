"""Commands of no particular meaning, and es_append called as the combiner calls it but with a batch of our choice."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg

from eventstore.codec import decode_outcome, encode_command
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.types import ANY, KEEP, Cause, Command, Condition, Content, Expand, Keep, Mode, NewEvent, Outcome

APPEND = "SELECT log.es_append(0::smallint, %s::jsonb, false)"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def event(
    stream: str,
    mode: Mode = ANY,
    *,
    ref: str | Keep | None = KEEP,
    state: str | Keep | None = KEEP,
    refers_to: tuple[str, ...] | Keep = KEEP,
    content: str | None = None,
    data: str = "{}",
    key: str = "key",
    kind: str = "Happened",
) -> NewEvent:
    """An event; its stream stays as it is unless told otherwise."""
    return NewEvent(stream, key, kind, 1, data, mode, ref, state, refers_to, content)


def command(
    *events: NewEvent | Expand,
    needs: tuple[Condition, ...] = (),
    given_id: str = "",
    now: datetime | None = None,
    address: str | None = None,
    contents: tuple[Content, ...] = (),
) -> Command:
    """A command with a fresh id unless one is given."""
    cause = Cause("tester", "request", address=address)
    return Command(given_id or secrets.token_hex(16), cause, now or datetime.now(UTC), events, needs, contents)


def as_batch(commands: Sequence[Command]) -> str:
    """The argument of es_append for these commands."""
    return "[" + ",".join(encode_command(each, DEFAULT_PARTITIONS) for each in commands) + "]"


def append_batch(connection: psycopg.Connection, commands: Sequence[Command]) -> list[Outcome]:
    """One call of es_append."""
    row = connection.execute(APPEND, (as_batch(commands),)).fetchone()
    assert row is not None
    return [decode_outcome(each) for each in row[0]]
