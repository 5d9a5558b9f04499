"""The parts of a decision about streams: the events to append, and conditions on the states of streams.

Nothing here is about containers. The event store takes these values as they are.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from domain.event import Event, encode

# The log of what is kept for ever, and the log of upload sessions, which are kept for some days (rule: two logs).
HISTORY = 0
UPLOADS = 1


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
class NowhereYet:
    """No log must have any event of the stream, otherwise the command is refused: a session may stand in either."""


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


Mode = AnyVersion | NoneYet | NowhereYet | Exact | Ensure
ANY = AnyVersion()
NONE_YET = NoneYet()
NOWHERE_YET = NowhereYet()
ENSURE = Ensure()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to append.

    `data` is compact JSON text written by our own code, under 2 KiB. `ref` and `state` become the stream's ref
    (short text, None = dead) and state (small JSON text); KEEP leaves them. `refers_to` replaces the stream's rows
    in `es_ref` (KEEP leaves them). `content` is the digest of a row of `es_content` which must exist.

    What goes to the log UPLOADS is of one stream, has neither references nor content, and is never ensured.
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
    log: int = HISTORY


def new_event(
    stream: str,
    key: str,
    happened: Event,
    *,
    mode: Mode = ANY,
    ref: str | Keep | None = KEEP,
    state: str | Keep | None = KEEP,
    refers_to: tuple[str, ...] | Keep = KEEP,
    content: str | None = None,
    log: int = HISTORY,
) -> NewEvent:
    """The event as the store takes it: encoded, under its stored name and schema version."""
    return NewEvent(
        stream=stream,
        key=key,
        type=happened.TYPE,
        schema_version=happened.written_version,
        data=encode(happened),
        mode=mode,
        ref=ref,
        state=state,
        refers_to=refers_to,
        content=content,
        log=log,
    )


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
    """One stream in a set. `refers` says that the event refers to it; `need` numbers what is needed of it.

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
    """Everything that a stored set needs must stand, as it did at position `seen` of the log `log` (`Sets.judge`).

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
class StreamState:
    """The state of a stream in its log: version 0, ref None and state None if it was never written."""

    stream: str
    version: int
    ref: str | None
    state: str | None
    recorded_at: datetime | None = None
    log: int = HISTORY
