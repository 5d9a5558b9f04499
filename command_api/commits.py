"""From staged bytes to a linked blob: first a durable rename, then the event (rule: bytes before events)."""

from collections.abc import Sequence

from blobstore.interface import BlobName, StagedUpload
from command_api.context import Context
from command_api.linking import blob_committed, blob_linked, repository_created
from domain import blob as blobs
from domain.blob import Blob
from domain.digests import Digest
from domain.names import RepositoryName
from domain.streams import LIVE, blob_stream
from eventstore.types import ENSURE, NONE_YET, Condition, NewEvent, RefIs, Refused, StreamState
from protocol.errors import Code, WireError, error
from protocol.messages import Headers, Request

_ATTEMPTS_MAX = 5


class SessionChanged(Exception):
    """Another request has ended the session before its commit could."""


def other_digest(expected: Digest, found: Digest, headers: Headers) -> WireError:
    """400 DIGEST_INVALID for bytes that have another digest than the client said."""
    return error(
        Code.DIGEST_INVALID,
        "the uploaded bytes have another digest",
        {"expected": str(expected), "found": str(found)},
        headers=headers,
    )


def commit_blob(
    context: Context,
    request: Request,
    repository: RepositoryName,
    digest: Digest,
    writer: StagedUpload,
    ending: Sequence[NewEvent],
) -> None:
    """Make the staged bytes the blob `digest` and link it in the repository.

    `ending` are the events that end the session, where there is one. The file is renamed over whatever is there
    (rule: a push heals). Raises SessionChanged if another request ended the session first, 503 if the blob's
    generation kept changing.
    """
    size = writer.size
    stream = blob_stream(digest)
    standing = _expected(context, digest)
    for _ in range(_ATTEMPTS_MAX):
        blob = Blob(size, _generation(standing))
        with context.work_gate:
            writer.commit(BlobName(digest, blob.generation))
        made, conditions = _made_live(digest, blob, standing)
        events = [*ending, repository_created(repository), made, blob_linked(repository, digest, blob)]
        outcome = context.append(request, events, conditions)
        if not isinstance(outcome, Refused):
            return
        changed = {each.stream: each for each in outcome.conflicts}
        if any(each.stream in changed for each in ending):
            raise SessionChanged
        standing = changed.get(stream) or context.store.stream_state(stream)
    raise error(Code.UNAVAILABLE, "the blob is being collected, try again", headers=[("Retry-After", "1")])


def _expected(context: Context, digest: Digest) -> StreamState:
    """What probably stands beside the blob's stream: nothing if its first file is not there.

    The append finds out if that is wrong.
    """
    stream = blob_stream(digest)
    if context.blobs.stat(BlobName(digest, 0)) is None:
        return StreamState(stream, 0, None, None)
    return context.store.stream_state(stream)


def _made_live(digest: Digest, blob: Blob, standing: StreamState) -> tuple[NewEvent, list[Condition]]:
    """BlobCommitted, and under which conditions it and its generation are right."""
    if standing.version == 0:
        return blob_committed(digest, blob, NONE_YET), []
    # Whoever makes the blob live meanwhile has computed the same generation; any other change means: look again.
    return blob_committed(digest, blob, ENSURE), [RefIs(((standing.stream, standing.ref), (standing.stream, LIVE)))]


def _generation(standing: StreamState) -> int:
    """The generation that an upload of this blob now has: a new one where the last one was given up."""
    if standing.state is None:
        return 0
    generation = blobs.from_state(standing.state).generation
    return generation if standing.ref == LIVE else generation + 1
