"""Events: their types, and how they are written as JSON and read back.

An event is declared once, as a frozen dataclass under `@event("Name")`. Old schema versions stay readable by
upcasters, one step a version; stored events are never rewritten.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar, TypeVar, dataclass_transform

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class UnknownEvent(ValueError):
    """An event type or schema version that this program does not know: a reader that meets it must stop."""


class MalformedEvent(ValueError):
    """Data that do not fit their event type: an event that nobody can take."""


class Event:
    """Base of all events. `TYPE` is the stored name, `SCHEMA_VERSION` the version that is written today."""

    TYPE: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int]
    # The names of its members, written by dataclass.
    __match_args__: ClassVar[tuple[str, ...]]
    # The same in the order of canonical JSON, each with what stands before its value.
    _WRITTEN: ClassVar[tuple[tuple[str, str], ...]]
    __slots__ = ()

    @property
    def written_version(self) -> int:
        """The schema version under which this event is stored: an older one if that can say all of it."""
        return self.SCHEMA_VERSION


E = TypeVar("E", bound=Event)

_TYPES: dict[str, type[Event]] = {}
_UPCASTERS: dict[tuple[str, int], Upcaster] = {}


@dataclass_transform(frozen_default=True)
def event(name: str, *, version: int = 1) -> Callable[[type[E]], type[E]]:
    """Declare an event type under its stored name and current schema version."""

    def declare(cls: type[E]) -> type[E]:
        if name in _TYPES:
            raise ValueError(f"event type declared twice: {name}")
        made = dataclass(frozen=True, slots=True)(cls)
        made.TYPE = name
        made.SCHEMA_VERSION = version
        made._WRITTEN = tuple((member, f"{to_json(member)}:") for member in sorted(made.__match_args__))
        _TYPES[name] = made
        return made

    return declare


def upcaster(name: str, *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Declare the step that turns `from_version` of an event's data into the next version."""

    def declare(step: Upcaster) -> Upcaster:
        _UPCASTERS[name, from_version] = step
        return step

    return declare


def event_types() -> Mapping[str, type[Event]]:
    """All declared event types by stored name."""
    return _TYPES


def readable_versions() -> Iterator[tuple[str, int]]:
    """Each event type with each schema version that `decode` takes."""
    for name, cls in _TYPES.items():
        version = cls.SCHEMA_VERSION
        yield name, version
        while (name, version - 1) in _UPCASTERS:
            version -= 1
            yield name, version


# Made once: json.dumps makes one for each call that asks for something unusual.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
)


def to_json(value: object) -> str:
    """Canonical compact JSON: sorted keys, ASCII only, so that equal values have equal bytes."""
    return _CANONICAL.encode(value)


def encode(happened: Event) -> str:
    """The event's data as canonical JSON; members whose value is None are left out.

    Put together by hand: an image takes some twenty events, and this an eighth of the time of a general encoder.
    """
    members = [
        begun + (encode_basestring_ascii(value) if type(value) is str else to_json(value))
        for name, begun in happened._WRITTEN
        if (value := getattr(happened, name)) is not None
    ]
    return f"{{{','.join(members)}}}"


def decode(name: str, version: int, data: str) -> Event:
    """The event that `data` holds, upcast to today's schema version.

    Raises UnknownEvent for a type or version that is not declared here, MalformedEvent for data that do not fit.
    """
    cls = _TYPES.get(name)
    if cls is None:
        raise UnknownEvent(f"unknown event type {name!r}")
    if version > cls.SCHEMA_VERSION:
        raise UnknownEvent(f"{name} has version {version}, this program knows up to {cls.SCHEMA_VERSION}")
    try:
        values: dict[str, Any] = json.loads(data)
    except ValueError as problem:
        raise MalformedEvent(f"the data of {name} are not JSON: {problem}") from problem
    if not isinstance(values, dict):
        raise MalformedEvent(f"the data of {name} are not a JSON object")
    while version < cls.SCHEMA_VERSION:
        step = _UPCASTERS.get((name, version))
        if step is None:
            raise UnknownEvent(f"no upcaster from version {version} of {name}")
        values = step(values)
        version += 1
    unknown = values.keys() - set(cls.__match_args__)
    if unknown:
        raise MalformedEvent(f"{name} has unknown members: {', '.join(sorted(unknown))}")
    try:
        return cls(**values)
    except TypeError as error:
        raise MalformedEvent(f"{name} lacks members: {error}") from error
