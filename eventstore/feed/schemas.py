"""JSON Schema (draft 2020-12) of each event type's data, made from its declaration."""

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from domain.event import Event
from domain.events import event_types
from eventstore.feed.records import schema_uri

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schemas() -> Mapping[str, dict[str, Any]]:
    """The schema of every event type by its name."""
    return {name: _schema(name, cls) for name, cls in sorted(event_types().items())}


def _schema(name: str, cls: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for member in cls.__match_args__:
        kind, optional = _unwrapped(hints[member])
        properties[member] = {"type": _NAMES[kind]}
        if not optional:
            required.append(member)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_uri(name, cls.SCHEMA_VERSION),
        "title": name,
        "description": " ".join((cls.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _unwrapped(hint: Any) -> tuple[type, bool]:
    """The type, and True if the member may be absent, because data leave out what is None."""
    if get_origin(hint) in (Union, types.UnionType):
        (kind,) = [each for each in get_args(hint) if each is not types.NoneType]
        return kind, True
    return hint, False
