"""DELETE of a blob: the repository's link goes, the bytes stay (rule: bytes stay)."""

from command_api.context import Context, new_event
from domain.link import BlobUnlinked
from domain.streams import LIVE, link_stream
from eventstore.types import RefIs, Refused
from protocol.errors import Code, error
from protocol.messages import Answer, Request, empty


def delete(context: Context, request: Request) -> Answer:
    """DELETE …/blobs/<digest>; 404 BLOB_UNKNOWN if the repository does not link it."""
    repository = request.repository
    digest = request.digest
    stream = link_stream(repository, digest)
    unlinked = new_event(stream, repository, BlobUnlinked(repository, str(digest)), ref=None, refers_to=())
    outcome = context.append(request, [unlinked], [RefIs(((stream, LIVE),))])
    if isinstance(outcome, Refused):
        raise error(Code.BLOB_UNKNOWN, "no such blob in this repository", {"digest": str(digest)})
    return empty(202)
