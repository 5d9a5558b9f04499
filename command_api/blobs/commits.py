"""From staged bytes to a linked blob: first a durable rename, then the event (rule: bytes before events)."""

from blobstore.interface import BlobName, StagedUpload
from command_api.context import Context
from command_api.refusals import refused
from domain.blob import CommitBlob, decide_commit, next_generation
from domain.decision import Refusal
from domain.digests import Digest
from domain.names import RepositoryName
from domain.streams import blob_stream
from domain.upload import Session
from eventstore.types import Refused, StreamState
from protocol.errors import Code, WireError, error
from protocol.messages import Headers, Request

_ATTEMPTS_MAX = 5


class SessionChanged(Exception):
    """Another request has changed the session before its commit could."""


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
    session: Session | None = None,
) -> None:
    """Make the staged bytes the blob `digest`, link it in the repository, and finish the session where there is one.

    The file is renamed over whatever is there (rule: a push heals). Raises SessionChanged if another request changed
    the session first, 503 if the blob's generation kept changing.
    """
    stream = blob_stream(digest)
    command = CommitBlob(repository, digest, writer.size, session)
    found = _expected(context, digest)
    for _ in range(_ATTEMPTS_MAX):
        decision = decide_commit(found, command)
        if isinstance(decision, Refusal):
            raise refused(request, decision)
        with context.work_gate:
            writer.commit(BlobName(digest, next_generation(found)))
        outcome = context.append(request, decision.events, decision.conditions)
        if not isinstance(outcome, Refused):
            return
        changed = {each.stream: each for each in outcome.conflicts}
        if session is not None and session.stream in changed:
            raise SessionChanged
        found = changed.get(stream) or context.store.stream_state(stream)
    raise error(Code.UNAVAILABLE, "the blob is being collected, try again", headers=[("Retry-After", "1")])


def _expected(context: Context, digest: Digest) -> StreamState:
    """The probable state of the blob's stream: no event yet if its first file is not there.

    The append finds out if that is wrong.
    """
    stream = blob_stream(digest)
    if context.blobs.stat(BlobName(digest, 0)) is None:
        return StreamState(stream, 0, None, None)
    return context.store.stream_state(stream)
