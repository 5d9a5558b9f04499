"""What callers say to the event store and what it answers.

The store knows streams, events, refs and conditions; it knows nothing of containers.
The rules are listed in docs/design/store.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from eventstore.window import Schema


class Keep(Enum):
    """Marks a value of the stream that an event leaves as it is."""

    KEEP = "keep"


KEEP = Keep.KEEP


@dataclass(frozen=True, slots=True)
class AnyVersion:
    """The event's content depends on nothing earlier: always appended."""


@dataclass(frozen=True, slots=True)
class NoneYet:
    """The stream must have no event at all, otherwise the command is refused."""


@dataclass(frozen=True, slots=True)
class Exact:
    """The stream must stand at this version (0: no event yet), otherwise the command is refused.

    Versions and conditions are judged on what stood before the command: two events of one command on one stream both
    name the version that the command found.
    """

    version: int


@dataclass(frozen=True, slots=True)
class Ensure:
    """Append unless the stream's ref already equals the one this event sets; then drop the event, not the command.

    The event must set a ref. Earlier events of the same command count.
    """


Mode = AnyVersion | NoneYet | Exact | Ensure
ANY = AnyVersion()
NONE_YET = NoneYet()
ENSURE = Ensure()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to append.

    `data` is compact JSON text written by our own code, under 2 KiB. `ref` and `state` become the stream's ref
    (short text, None = dead) and state (small JSON text); KEEP leaves them. `refers_to` replaces the stream's rows
    in `es_ref` (KEEP leaves them). `content` is the digest of a row of `es_content` which must exist.
    """

    stream: str
    key: str
    type: str
    schema_version: int
    data: str
    mode: Mode = ANY
    ref: str | Keep | None = KEEP
    state: str | Keep | None = KEEP
    refers_to: tuple[str, ...] | Keep = KEEP
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Expand:
    """Append one event to every stream whose ref is `target` at the moment of the append (rule: modes of events).

    Each gets `data` (a JSON object text) plus the member `field`, whose value is the stream's name without `prefix`.
    Streams whose name does not start with `prefix` are left alone. The streams' ref becomes `ref`. Earlier events of
    the same command count: a tag that it moved away is left alone. At most `most` streams, any of them.
    """

    target: str
    prefix: str
    key: str
    type: str
    schema_version: int
    data: str
    field: str
    ref: str | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class RefIs:
    """At least one of `alternatives` (stream, ref) must stand; ref None = the stream is dead or was never written."""

    alternatives: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class RefIsNot:
    """The stream's ref must differ from `ref` (None: the stream must be alive)."""

    stream: str
    ref: str | None


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """No stream may refer to `target` (es_ref)."""

    target: str


@dataclass(frozen=True, slots=True)
class AtMost:
    """No more than `count` streams whose names start with `prefix` may have the ref `ref`."""

    ref: str
    prefix: str
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """One stream in a set: whether it `refers` to it, and what it needs of it, as need number `need`.

    The need holds if the stream has `ref`, or if `or_target` has `or_ref`. Without a number nothing is needed.
    """

    target: str
    refers: bool
    need: int | None = None
    ref: str | None = None
    or_target: str | None = None
    or_ref: str | None = None


@dataclass(frozen=True, slots=True)
class SetHolds:
    """Everything that a stored set needs must stand, as it did at position `seen` of the log `log` (`Store.judge_set`).

    Only what changed since is looked at under the append's lock, so a set may be of any size. Its streams are all of
    the key `key`. A command that refers to a set must have this condition, because sets that none refers to are swept.
    """

    digest: str
    key: str
    seen: int
    log: str


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """The numbers of the needs of a set that do not hold, judged on what stood at position `seen` or later.

    `log` tells one log from what a restore makes of it: positions of one mean nothing in the other.
    """

    seen: int
    log: str
    failed: tuple[int, ...]


Condition = RefIs | RefIsNot | Unreferenced | AtMost | SetHolds


def set_target(digest: str) -> str:
    """The target of an event that refers to all streams of a set."""
    return f"set-{digest}"


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

    `id` is the idempotency key (rule: random command ids). `now` is the time of the appender's clock.
    """

    id: str
    cause: Cause
    now: datetime
    events: tuple[NewEvent | Expand, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of a stream: version 0, ref None and state None if it was never written."""

    stream: str
    version: int
    ref: str | None
    state: str | None
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The command stands in the log. `positions` has one entry per event really appended, in order.

    `last_position` is the last of them, or the head of the log if every event was dropped.
    `previous_refs` maps each stream appended to onto the ref that it had before this command.
    `repeated` is True if the same command id had been appended before.
    """

    positions: tuple[int, ...]
    last_position: int
    recorded_at: datetime
    previous_refs: Mapping[str, str | None] = field(default_factory=dict)
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
    """A secret by which processes of this log seal what they give out; no text of it shows the secret."""

    id: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What is fixed of the log: its partitions, its epoch (rule: epochs), the cluster it was last seen in, its schema.

    `read_only`: whether the database takes no writes now, a standby or so set.
    """

    partitions: int
    epoch: int
    system_identifier: str
    timeline: int
    created_at: datetime
    revision: str
    serves_from: str
    read_only: bool

    @property
    def schema(self) -> Schema:
        """The revision of a schema, and the oldest program that may serve it."""
        return Schema(self.revision, self.serves_from)


Clock = Callable[[], datetime]


class StoreError(Exception):
    """Base of what the store raises."""


class StoreUnavailable(StoreError):
    """The database did not answer within the append's time limit; the outcome may be unknown. Answer 503."""


class AppendRejected(StoreError):
    """The append function refused the call itself (wrong isolation, clock too far ahead, malformed command)."""


class FeatureNotInUse(StoreError):
    """Some live processes would not understand what was to be written, so nothing was. Answer 503."""

    def __init__(self, name: str, lacking: Sequence[str]) -> None:
        super().__init__(f"{name} is used once every process has it; these do not: {', '.join(lacking)}")
        self.name = name


class SchemaOutdated(StoreError):
    """The database's schema is not one that this program serves, or lets only newer programs serve."""
