"""The link: a repository's right to a blob (rule: a digest is no right)."""

import json
from dataclasses import dataclass
from functools import lru_cache

from domain.changes import ENSURE, NewEvent, RefIs, StreamState, new_event
from domain.decision import Decision, Reason, Requirement
from domain.digests import Digest
from domain.event import Event, event
from domain.names import RepositoryName
from domain.repository import created
from domain.streams import LIVE, blob_stream, link_stream

_KEPT = 1024


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
    return f'{{"generation":{link.generation},"size":{link.size}}}'


@lru_cache(_KEPT)
def from_state(state: str) -> Link:
    """The link that `to_state` wrote. A push reads one for each layer, and most were read before."""
    return Link(**json.loads(state))


def live_link(found: StreamState) -> Link | None:
    """The link that stands in a stream of links; None if there is none now."""
    return from_state(found.state) if found.ref == LIVE and found.state is not None else None


@dataclass(frozen=True, slots=True)
class BlobUnknown(Reason):
    """The repository does not link the blob."""

    digest: str


@dataclass(frozen=True, slots=True)
class UnlinkBlob:
    """Take a repository's right to a blob away."""

    repository: RepositoryName
    digest: Digest


def decide_unlinking(command: UnlinkBlob) -> Decision:
    """Unlink the blob if it is linked, even if manifests still name it (rule: deleted blobs stay linked nowhere)."""
    repository, digest = command.repository, command.digest
    stream = link_stream(repository, digest)
    unlinked = new_event(stream, repository, BlobUnlinked(repository, str(digest)), ref=None, refers_to=())
    return Decision((unlinked,), (_required(repository, digest),))


@dataclass(frozen=True, slots=True)
class MountBlob:
    """Give a repository the right to a blob that the repository `source` has."""

    repository: RepositoryName
    digest: Digest
    source: RepositoryName


def decide_mount(source: Link, command: MountBlob) -> Decision:
    """Link the blob as the source's link says, if that still stands."""
    repository, digest = command.repository, command.digest
    linked = linked_blob(repository, digest, source, mounted_from=command.source)
    return Decision((created(repository), linked), (_required(command.source, digest),))


def linked_blob(
    repository: RepositoryName, digest: Digest, link: Link, mounted_from: RepositoryName | None = None
) -> NewEvent:
    """BlobLinked, unless the link is live already."""
    return new_event(
        link_stream(repository, digest),
        repository,
        BlobLinked(
            repository,
            str(digest),
            link.size,
            link.generation,
            source="upload" if mounted_from is None else "mount",
            mounted_from=mounted_from,
        ),
        mode=ENSURE,
        ref=LIVE,
        state=to_state(link),
        refers_to=(blob_stream(digest),),
    )


def _required(repository: RepositoryName, digest: Digest) -> Requirement:
    return Requirement(RefIs(((link_stream(repository, digest), LIVE),)), BlobUnknown(str(digest)))
