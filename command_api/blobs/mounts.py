"""Mounting a blob from another repository instead of uploading it (rule: mounts never fail)."""

from command_api.blobs.held import is_whole
from command_api.context import Context
from domain.digests import Digest
from domain.link import MountBlob, decide_mount, live_link
from domain.names import InvalidName, RepositoryName, parse_repository_name
from domain.streams import LINK_PREFIX, blob_stream, link_stream, repository_of_link_stream
from eventstore.types import StreamState
from protocol.messages import Request

_SOURCES_MAX = 20


def mount(context: Context, request: Request, repository: RepositoryName, digest: Digest) -> bool:
    """Link the blob if a repository that the actor may read links it; False means: open a session instead.

    A source that cannot be read looks exactly like a blob that nobody has.
    """
    for source in _sources(context, request, repository, digest):
        link = live_link(source)
        if link is None or not is_whole(context, digest, link):
            continue
        command = MountBlob(repository, digest, repository_of_link_stream(source.stream))
        if context.carry_out(request, decide_mount(link, command)) is None:
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
    streams = list(dict.fromkeys(named + [each for each in others if each.startswith(LINK_PREFIX)]))
    states = context.store.stream_states(streams)
    return [states[each] for each in streams]
