"""Events as Kafka records: CloudEvents 1.0 in binary mode, whose value is the event's data exactly as recorded.

Source: cloudevents.io, "Kafka Protocol Binding for CloudEvents", section 3.2. Every relay makes identical records of
the same log, so that one which does not know that it was replaced does no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventstore.types import HISTORY, Recorded

SOURCE = "/tagtrail/log/"
TYPE_PREFIX = "tagtrail."
WATERMARK = "Watermark"
Headers = list[tuple[str, bytes]]

_OPTIONAL = ("correlationid", "prevref", "content")


class NotOurs(ValueError):
    """A record that no relay of ours has written."""


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """A record as a consumer gets it. `prev` is the position of the event before it in the same topic and partition.

    `event` is None for a watermark, which says that the partition has no event in (prev, position].
    """

    partition: int
    offset: int
    position: int
    prev: int
    epoch: int
    event: Recorded | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record as a producer sends it."""

    key: bytes | None
    value: bytes
    headers: Headers


def schema_uri(event_type: str, schema_version: int) -> str:
    """The name of an event type's JSON schema, as `tagtrail events schemas` writes them."""
    return f"/tagtrail/schemas/{event_type}/{schema_version}.json"


def outgoing(event: Recorded, prev: int, epoch: int, log: int = HISTORY) -> Outgoing:
    """The record of an event of this log."""
    attributes = {
        "id": str(event.event_id),
        "type": TYPE_PREFIX + event.type,
        "subject": event.stream,
        "time": event.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "dataschema": schema_uri(event.type, event.schema_version),
        "partitionkey": event.key,
        "pos": str(event.position),
        "prev": str(prev),
        "epoch": str(epoch),
        "streamversion": str(event.version),
        "schemaversion": str(event.schema_version),
        "actor": event.actor,
        "requestid": event.request_id,
        "correlationid": event.correlation_id,
        "prevref": event.prev_ref,
        "content": event.content,
    }
    return Outgoing(event.key.encode(), event.data.encode(), _headers(attributes, log))


def watermark(partition: int, position: int, prev: int, epoch: int, now: datetime) -> Outgoing:
    """A record that says that a partition of the history has no event in (prev, position]."""
    attributes = {
        "id": f"watermark-{epoch}-{partition}-{position}",
        "type": TYPE_PREFIX + WATERMARK,
        "time": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "pos": str(position),
        "prev": str(prev),
        "epoch": str(epoch),
    }
    return Outgoing(None, b"{}", _headers(attributes, HISTORY))


def _headers(attributes: Mapping[str, str | None], log: int) -> Headers:
    headers: Headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_source", f"{SOURCE}{log}".encode()),
    ]
    return headers + [(f"ce_{name}", value.encode()) for name, value in attributes.items() if value is not None]


def record_of(message: Any) -> FeedRecord:
    """The record in a message of kafka-python. Raises NotOurs."""
    try:
        given = {name.removeprefix("ce_"): value.decode() for name, value in message.headers or ()}
        event_type = given["type"].removeprefix(TYPE_PREFIX)
        event = None if event_type == WATERMARK else _event(given, event_type, message)
        return FeedRecord(
            message.partition, message.offset, int(given["pos"]), int(given["prev"]), int(given["epoch"]), event
        )
    except (KeyError, ValueError, AttributeError) as problem:
        raise NotOurs(f"offset {message.offset} of partition {message.partition}: {problem!r}") from problem


def _event(given: Mapping[str, str], event_type: str, message: Any) -> Recorded:
    optional = {name: given.get(name) for name in _OPTIONAL}
    return Recorded(
        position=int(given["pos"]),
        stream=given["subject"],
        version=int(given["streamversion"]),
        key=message.key.decode(),
        partition=message.partition,
        type=event_type,
        schema_version=int(given["schemaversion"]),
        event_id=UUID(given["id"]),
        recorded_at=datetime.fromisoformat(given["time"]),
        actor=given["actor"],
        request_id=given["requestid"],
        correlation_id=optional["correlationid"],
        prev_ref=optional["prevref"],
        content=optional["content"],
        data=message.value.decode(),
    )
