"""The events that give a repository a blob: by upload or by mount."""

from functools import lru_cache

from command_api.context import new_event
from domain import blob as blobs
from domain import link as links
from domain.blob import Blob, BlobCommitted
from domain.digests import Digest
from domain.link import BlobLinked, Link
from domain.names import RepositoryName
from domain.repository import RepositoryCreated
from domain.streams import LIVE, blob_stream, link_stream, repository_stream
from eventstore.types import ENSURE, Mode, NewEvent

_REPOSITORIES_KEPT = 1024


@lru_cache(_REPOSITORIES_KEPT)
def repository_created(repository: RepositoryName) -> NewEvent:
    """RepositoryCreated, unless it stands already: any number of first pushes may bring it (rule: modes of events)."""
    return new_event(repository_stream(repository), repository, RepositoryCreated(repository), mode=ENSURE, ref=LIVE)


def blob_committed(digest: Digest, blob: Blob, mode: Mode = ENSURE) -> NewEvent:
    """BlobCommitted, unless the blob is live already."""
    return new_event(
        blob_stream(digest),
        str(digest),
        BlobCommitted(str(digest), blob.size, blob.generation),
        mode=mode,
        ref=LIVE,
        state=blobs.to_state(blob),
    )


def blob_linked(repository: RepositoryName, digest: Digest, blob: Blob, mounted_from: str | None = None) -> NewEvent:
    """BlobLinked, unless the link is live already."""
    return new_event(
        link_stream(repository, digest),
        repository,
        BlobLinked(
            repository,
            str(digest),
            blob.size,
            blob.generation,
            source="upload" if mounted_from is None else "mount",
            mounted_from=mounted_from,
        ),
        mode=ENSURE,
        ref=LIVE,
        state=links.to_state(Link(blob.size, blob.generation)),
        refers_to=(blob_stream(digest),),
    )
