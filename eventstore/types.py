"""The values that callers give to the event store and that it answers.

The store knows streams, events, refs and conditions; it knows nothing of containers. A command says its changes in
the words of `domain.changes`, because decisions are made in them; they are named here too, for all users of the store.
The rules are listed in docs/design/store.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from domain.changes import (
    ANY,
    ENSURE,
    HISTORY,
    KEEP,
    NONE_YET,
    NOWHERE_YET,
    UPLOADS,
    AnyVersion,
    AtMost,
    Condition,
    Ensure,
    Exact,
    Expand,
    JudgedSet,
    Keep,
    Member,
    Mode,
    NewEvent,
    NoneYet,
    NowhereYet,
    RefIs,
    RefIsNot,
    SetHolds,
    StreamState,
    Unreferenced,
    set_target,
)
from eventstore.window import Schema

__all__ = [
    "ANY",
    "ENSURE",
    "HISTORY",
    "KEEP",
    "NONE_YET",
    "NOWHERE_YET",
    "UPLOADS",
    "AnyVersion",
    "AppendRejected",
    "Appended",
    "AtMost",
    "Cause",
    "Clock",
    "Command",
    "Condition",
    "Content",
    "Ensure",
    "Exact",
    "Expand",
    "FeatureNotInUse",
    "JudgedSet",
    "Keep",
    "LogInfo",
    "Member",
    "Mode",
    "NewEvent",
    "NoneYet",
    "NowhereYet",
    "Outcome",
    "Recorded",
    "RefIs",
    "RefIsNot",
    "Refused",
    "SchemaOutdated",
    "SetHolds",
    "StoreError",
    "StoreUnavailable",
    "StreamState",
    "Unreferenced",
    "set_target",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """The actor that asked, and through which request; becomes the metadata of every event of the command.

    `correlation_id` is the trace that the request is a part of, where its sender keeps one.
    """

    actor: str
    request_id: str
    correlation_id: str | None = None
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One atomic append over any number of streams (rule: whole or not at all).

    `id` is the idempotency key (rule: random command ids). `now` is the time of the appender's clock
    (rule: times never fall). `contents` are stored if they are not there yet, before the events that name them or
    together with them (rule: content before the append).
    """

    id: str
    cause: Cause
    now: datetime
    events: tuple[NewEvent | Expand, ...]
    conditions: tuple[Condition, ...] = ()
    contents: tuple["Content", ...] = ()


@dataclass(frozen=True, slots=True)
class Appended:
    """The command stands in the log. `positions` has one entry per event really appended, in order.

    They are those of the history, or of the log of uploads if the command has events for that one alone.
    `last_position` is the last of them, or the head of the log if every event was dropped.
    `repeated` is True if the same command id had been appended before.
    """

    positions: tuple[int, ...]
    last_position: int
    recorded_at: datetime
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The command left no trace. Exactly the reasons that held under the lock are named.

    `failed_conditions` are indexes into `Command.conditions`. `conflicts` are the streams whose version did not
    fit, as they stand now. `missing_content` are digests that no content row has (the caller stores them again).
    """

    failed_conditions: tuple[int, ...] = ()
    conflicts: tuple[StreamState, ...] = ()
    missing_content: tuple[str, ...] = ()


Outcome = Appended | Refused


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as it stands in the log. `data` is the JSON text exactly as appended."""

    position: int
    stream: str
    version: int
    key: str
    partition: int
    type: str
    schema_version: int
    event_id: UUID
    recorded_at: datetime
    actor: str
    request_id: str
    correlation_id: str | None
    prev_ref: str | None
    content: str | None
    data: str
    facts: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A row of `es_content`: immutable bytes by digest, and the facts that parsing them gave (our own JSON)."""

    digest: str
    body: bytes
    facts: str


@dataclass(frozen=True, slots=True)
class SealKey:
    """A secret by which processes of this log seal ids; its text form does not show it."""

    id: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """The log's own row: its partitions, its epoch (rule: epochs), and the revision of its schema.

    `read_only` is True if the database takes no writes now, as a standby or by a setting.
    """

    partitions: int
    epoch: int
    revision: str
    serves_from: str
    read_only: bool

    @property
    def schema(self) -> Schema:
        """The revision of a schema, and the oldest program that may serve it."""
        return Schema(self.revision, self.serves_from)


Clock = Callable[[], datetime]


class StoreError(Exception):
    """Base of the errors that the store raises."""


class StoreUnavailable(StoreError):
    """The database did not answer within the append's time limit; the outcome may be unknown. Answer 503."""


class AppendRejected(StoreError):
    """The append function refused the call itself (wrong isolation, clock too far ahead, malformed command)."""


class FeatureNotInUse(StoreError):
    """Some live processes would not understand the events, so nothing was appended. Answer 503."""

    def __init__(self, name: str, lacking: Sequence[str]) -> None:
        super().__init__(f"{name} is used once every process has it; these do not: {', '.join(lacking)}")
        self.name = name


class SchemaOutdated(StoreError):
    """The database's schema is not one that this program serves, or lets only newer programs serve."""
