"""The manifest: pushed into a repository, deleted from it; its bytes and facts are content of the log."""

import json
from dataclasses import dataclass

from domain.event import Event, event, to_json


@event("ManifestPushed")
class ManifestPushed(Event):
    """The repository serves the manifest under this media type. Its facts stand in the log's content."""

    repository: str
    digest: str
    media_type: str
    size: int
    subject: str | None = None


@event("ManifestDeleted")
class ManifestDeleted(Event):
    """The repository no longer serves the manifest."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that a repository has: the size of its bytes."""

    size: int


def to_state(manifest: Manifest) -> str:
    """The manifest as the small JSON text that the store keeps beside its stream."""
    return to_json({"size": manifest.size})


def from_state(state: str) -> Manifest:
    """The manifest that `to_state` wrote."""
    return Manifest(**json.loads(state))
