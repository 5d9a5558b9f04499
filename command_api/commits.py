"""From staged bytes to a linked blob: rename into place, durable, then the event that claims it (I1, S24)."""

from blobstore.interface import BlobName, StagedUpload
from command_api.context import Context
from command_api.linking import blob_committed, blob_linked, repository_created
from domain import blob as blobs
from domain.blob import Blob
from domain.digests import Digest
from domain.names import RepositoryName
from domain.streams import LIVE, blob_stream
from eventstore.types import NewEvent, RefIs, Refused, StreamState
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
    committed: NewEvent | None,
) -> None:
    """Make the staged bytes the blob `digest` and link it in the repository.

    `committed` ends the session, where there is one. Always renames over what is there: that heals damage (S25).
    Raises SessionChanged if another request ended the session first, 503 if the blob's generation kept changing.
    """
    size = writer.size
    stream = blob_stream(digest)
    for _ in range(_ATTEMPTS_MAX):
        standing = context.store.stream_state(stream)
        blob = Blob(size, _generation(standing))
        with context.work_gate:
            writer.commit(BlobName(digest, blob.generation))
        events = [repository_created(repository), blob_committed(digest, blob), blob_linked(repository, digest, blob)]
        if committed is not None:
            events.insert(0, committed)
        # Whoever makes the blob live meanwhile has computed the same generation; any other change means: look again.
        outcome = context.append(request, events, [RefIs(((stream, standing.ref), (stream, LIVE)))])
        if not isinstance(outcome, Refused):
            return
        if outcome.conflicts:
            raise SessionChanged
    raise error(Code.UNAVAILABLE, "the blob is being collected, try again", headers=[("Retry-After", "1")])


def _generation(standing: StreamState) -> int:
    """The generation that an upload of this blob now has: a new one where the last one was given up."""
    if standing.state is None:
        return 0
    generation = blobs.from_state(standing.state).generation
    return generation if standing.ref == LIVE else generation + 1
