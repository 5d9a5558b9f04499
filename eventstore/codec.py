"""Commands as the JSON that es_append reads, its answers as outcomes, rows as events."""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from eventstore.partition import partition_of
from eventstore.types import (
    HISTORY,
    UPLOADS,
    Appended,
    AppendRejected,
    AtMost,
    Command,
    Condition,
    Content,
    Ensure,
    Exact,
    Expand,
    Keep,
    NewEvent,
    NoneYet,
    NowhereYet,
    Outcome,
    Recorded,
    RefIs,
    RefIsNot,
    Refused,
    SetHolds,
    StreamState,
    Unreferenced,
)

EVENT_DATA_BYTES_MAX = 2048
# The most bytes of body and facts that an append may carry, enough for most manifests. Everybody waits while they are
# stored.
CARRIED_BYTES_MAX = 16 * 1024

# Of a row of log.es_event called `e`; the JSON as text, so that it stays exactly as appended.
EVENT_COLUMNS = (
    "e.position, e.stream, e.version, e.key, e.partition, e.type, e.schema_version, e.event_id, e.recorded_at, "
    "e.actor, e.request_id, e.correlation_id, e.prev_ref, e.content, e.data::text"
)
# Made once: json.dumps makes one for each call that asks for something unusual.
_COMPACT = json.JSONEncoder(separators=(",", ":"), check_circular=False)
STREAM_COLUMNS = "s.stream, s.version, s.ref, s.state::text, s.recorded_at, s.log_id"


def recorded_from_row(row: Sequence[Any]) -> Recorded:
    """The event that a row of EVENT_COLUMNS holds, with the facts of its content if they follow as a last column."""
    return Recorded(*row)


def stream_state_from_row(row: Sequence[Any]) -> StreamState:
    """The state that a row of STREAM_COLUMNS holds."""
    return StreamState(*row)


def encode_command(command: Command, partitions: int) -> str:
    """The command as JSON text for es_append. Raises AppendRejected for a command that can never be appended."""
    if command.now.tzinfo is None:
        raise AppendRejected("a command's time must name its zone")
    cause = command.cause
    encoded: dict[str, Any] = {
        "id": command.id,
        "now": command.now.astimezone(UTC).isoformat(),
        "actor": cause.actor,
        "request_id": cause.request_id,
    }
    history = [each for each in command.events if log_of(each) == HISTORY]
    session = [each for each in command.events if isinstance(each, NewEvent) and each.log == UPLOADS]
    if history or not session:
        encoded["events"] = [
            _expand(each, partitions) if isinstance(each, Expand) else _event(each, partitions) for each in history
        ]
    carried = carried_contents(command)
    optional = {
        "session": _session(session, partitions),
        "nowhere": _nowhere(history),
        "correlation_id": cause.correlation_id,
        "address": cause.address,
        "user_agent": cause.user_agent,
        "conditions": _conditions(command.conditions) if command.conditions else None,
        "versions": _versions(history),
        "contents": [each for each in _named(command.events) if each not in {one.digest for one in carried}],
        "carried": [[each.digest, b64encode(each.body).decode(), each.facts] for each in carried],
    }
    encoded.update((name, value) for name, value in optional.items() if value)
    return _COMPACT.encode(encoded)


def _event(event: NewEvent, partitions: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "stream": event.stream,
        "key": event.key,
        "partition": partition_of(event.key, partitions),
        **_happened(event),
    }
    if not isinstance(event.refers_to, Keep):
        encoded["refers_to"] = event.refers_to
    if event.content is not None:
        encoded["content"] = event.content
    if isinstance(event.mode, Ensure):
        if isinstance(event.ref, Keep):
            raise AppendRejected(f"{event.type} is to be ensured but sets no ref")
        encoded["ensure"] = True
    return encoded


def log_of(event: NewEvent | Expand) -> int:
    """The log that the event goes to."""
    return event.log if isinstance(event, NewEvent) else HISTORY


def logs_of(command: Command) -> frozenset[int]:
    """The logs whose locks the append of the command takes."""
    logs = {log_of(each) for each in command.events}
    if command.conditions or not logs:
        logs.add(HISTORY)
    if any(isinstance(each, NewEvent) and isinstance(each.mode, NowhereYet) for each in command.events):
        logs.add(UPLOADS)
    return frozenset(logs)


def _session(events: Sequence[NewEvent], partitions: int) -> dict[str, Any] | None:
    """The session of a command in the log of uploads: its events are of one stream. None if it has none."""
    if not events:
        return None
    names = {(each.stream, each.key) for each in events}
    if len(names) > 1:
        raise AppendRejected("a command can append to one stream of the log of uploads")
    ((stream, key),) = names
    session: dict[str, Any] = {
        "stream": stream,
        "key": key,
        "partition": partition_of(key, partitions),
        "events": [_session_event(each) for each in events],
    }
    expected = {version for _, version in _versions(events)}
    if len(expected) > 1:
        raise AppendRejected(f"{stream} cannot stand at several versions")
    if expected:
        (session["version"],) = expected
    return session


def _session_event(event: NewEvent) -> dict[str, Any]:
    if not isinstance(event.refers_to, Keep) or event.content is not None or isinstance(event.mode, Ensure):
        raise AppendRejected(f"{event.type} is for the history, not for the log of uploads")
    return _happened(event)


def _happened(event: NewEvent) -> dict[str, Any]:
    """The words of the event, and what its stream says from then on."""
    _refuse_large(event)
    encoded: dict[str, Any] = {"type": event.type, "schema_version": event.schema_version, "data": event.data}
    for name, value in (("ref", event.ref), ("state", event.state)):
        if not isinstance(value, Keep):
            encoded[name] = value
    return encoded


def _nowhere(events: Iterable[NewEvent | Expand]) -> str | None:
    """The stream of the history that the log of uploads must not have."""
    names = {each.stream for each in events if isinstance(each, NewEvent) and isinstance(each.mode, NowhereYet)}
    if len(names) > 1:
        raise AppendRejected("a command can begin one session")
    return next(iter(names), None)


def _expand(expand: Expand, partitions: int) -> dict[str, Any]:
    _refuse_large(expand)
    return {
        "target": expand.target,
        "prefix": expand.prefix,
        "key": expand.key,
        "partition": partition_of(expand.key, partitions),
        "type": expand.type,
        "schema_version": expand.schema_version,
        "data": expand.data,
        "field": expand.field,
        "ref": expand.ref,
        "most": expand.most,
    }


def _refuse_large(event: NewEvent | Expand) -> None:
    if len(event.data.encode(errors="surrogatepass")) > EVENT_DATA_BYTES_MAX:
        raise AppendRejected(f"the data of {event.type} is over {EVENT_DATA_BYTES_MAX} bytes")


def _conditions(conditions: Iterable[Condition]) -> dict[str, list[list[Any]]]:
    """Rows of [index, ...] by kind; RefIs has one row for each alternative."""
    kinds: dict[str, list[list[Any]]] = {"is": [], "is_not": [], "unreferenced": [], "at_most": [], "sets": []}
    for index, condition in enumerate(conditions):
        match condition:
            case RefIs(alternatives):
                if not alternatives:
                    raise AppendRejected("a condition needs at least one alternative")
                kinds["is"].extend([index, stream, ref] for stream, ref in alternatives)
            case RefIsNot(stream, ref):
                kinds["is_not"].append([index, stream, ref])
            case Unreferenced(target):
                kinds["unreferenced"].append([index, target])
            case AtMost(ref, prefix, count):
                kinds["at_most"].append([index, ref, prefix, count])
            case SetHolds(digest, key, seen, log):
                kinds["sets"].append([index, digest, key, seen, log])
    return {kind: rows for kind, rows in kinds.items() if rows}


def _versions(events: Iterable[NewEvent | Expand]) -> list[tuple[str, int]]:
    expected: dict[tuple[str, int], None] = {}
    for event in events:
        match event:
            case NewEvent(stream=stream, mode=NoneYet() | NowhereYet()):
                expected[stream, 0] = None
            case NewEvent(stream=stream, mode=Exact(version)):
                expected[stream, version] = None
    return list(expected)


def _named(events: Iterable[NewEvent | Expand]) -> list[str]:
    named = (event.content for event in events if isinstance(event, NewEvent) and event.content is not None)
    return list(dict.fromkeys(named))


def carried_contents(command: Command) -> list[Content]:
    """The contents that the append itself stores: small ones, which an event names that is never dropped.

    So none is ever stored without the event that names it, and no sweep has to look.
    """
    appended = _named(
        each for each in command.events if isinstance(each, NewEvent) and not isinstance(each.mode, Ensure)
    )
    return [
        each
        for each in command.contents
        if each.digest in appended and len(each.body) + len(each.facts) <= CARRIED_BYTES_MAX
    ]


def decode_outcome(answer: dict[str, Any]) -> Outcome:
    """One element of es_append's answer."""
    refused = answer.get("refused")
    if refused is not None:
        return Refused(
            failed_conditions=tuple(sorted(refused["failed"] or ())),
            conflicts=tuple(
                StreamState(stream, version, ref, state, None if moment is None else _time(moment), *log)
                for stream, version, ref, state, moment, *log in refused["conflicts"] or ()
            ),
            missing_content=tuple(refused["missing"] or ()),
        )
    repeated = "repeated" in answer
    appended = answer["repeated" if repeated else "appended"]
    return Appended(
        positions=tuple(range(appended["first"], appended["last"] + 1)),
        last_position=appended["last"],
        recorded_at=_time(appended["recorded_at"]),
        repeated=repeated,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
