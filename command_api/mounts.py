"""Mounting a blob from another repository instead of uploading it (rule: mounts never fail)."""

from blobstore.interface import BlobName
from command_api.context import Context
from command_api.linking import blob_linked, repository_created
from domain import link as links
from domain.blob import Blob
from domain.digests import Digest
from domain.names import InvalidName, RepositoryName, parse_repository_name
from domain.streams import LIVE, blob_stream, link_stream
from eventstore.types import Appended, RefIs, StreamState
from protocol.messages import Request

_SOURCES_MAX = 20


def mount(context: Context, request: Request, repository: RepositoryName, digest: Digest) -> bool:
    """Link the blob if a repository that the actor may read links it; False means: open a session instead.

    A source that cannot be read looks exactly like a blob that nobody has.
    """
    for source in _sources(context, request, repository, digest):
        if source.ref != LIVE or source.state is None:
            continue
        link = links.from_state(source.state)
        if context.blobs.stat(BlobName(digest, link.generation)) != link.size:
            continue
        blob = Blob(link.size, link.generation)
        mounted_from = source.stream.removeprefix("link-").rpartition("@")[0]
        outcome = context.append(
            request,
            [repository_created(repository), blob_linked(repository, digest, blob, mounted_from)],
            [RefIs(((source.stream, LIVE),))],
        )
        if isinstance(outcome, Appended):
            return True
    return False


def _sources(context: Context, request: Request, repository: RepositoryName, digest: Digest) -> list[StreamState]:
    """Links that could be the source: the target's own first, then the one that was named, then any other."""
    named = [link_stream(repository, digest)]
    origin = request.parameter("from")
    if origin is not None:
        try:
            named.append(link_stream(parse_repository_name(origin), digest))
        except InvalidName:
            return []
    others = context.store.referring_streams(blob_stream(digest), _SOURCES_MAX)
    streams = list(dict.fromkeys(named + [each for each in others if each.startswith("link-")]))
    states = context.store.stream_states(streams)
    return [states[each] for each in streams]
