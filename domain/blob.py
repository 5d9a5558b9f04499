"""The blob: bytes by digest, one copy whatever the number of repositories that link it."""

import json
from dataclasses import dataclass

from domain.event import Event, event, to_json


@event("BlobCommitted")
class BlobCommitted(Event):
    """The bytes are durable in the file of this generation."""

    digest: str
    size: int
    generation: int


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as it stands; `generation` names its file (rule: generations)."""

    size: int
    generation: int


def to_state(blob: Blob) -> str:
    """The blob as the small JSON text that the store keeps beside its stream."""
    return to_json({"size": blob.size, "generation": blob.generation})


def from_state(state: str) -> Blob:
    """The blob that `to_state` wrote."""
    return Blob(**json.loads(state))
