"""The link: a repository's right to a blob."""

import json
from dataclasses import dataclass

from domain.event import Event, event, to_json


@event("BlobLinked")
class BlobLinked(Event):
    """The repository may serve the blob. `source` is "upload" or "mount"; `mounted_from` names a mount's source."""

    repository: str
    digest: str
    size: int
    generation: int
    source: str
    mounted_from: str | None = None


@event("BlobUnlinked")
class BlobUnlinked(Event):
    """The repository no longer serves the blob; its bytes stay."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Link:
    """A live link: size in bytes and generation of the blob's file."""

    size: int
    generation: int


def to_state(link: Link) -> str:
    """The link as the small JSON text that the store keeps beside its stream."""
    return to_json({"size": link.size, "generation": link.generation})


def from_state(state: str) -> Link:
    """The link that `to_state` wrote."""
    return Link(**json.loads(state))
