"""The blob: bytes by digest, one copy whatever the number of repositories that link it."""

import json
from dataclasses import dataclass

from domain.changes import ENSURE, NONE_YET, RefIs, StreamState, new_event
from domain.decision import Decision, Refusal, Requirement
from domain.digests import Digest
from domain.event import Event, event
from domain.link import Link, linked_blob
from domain.names import RepositoryName
from domain.repository import created
from domain.streams import LIVE, blob_stream
from domain.upload import FinishUpload, Session, decide_finish


@event("BlobCommitted")
class BlobCommitted(Event):
    """The bytes are durable in the file of this generation."""

    digest: str
    size: int
    generation: int


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as it stands; `generation` names its file (rule: generations)."""

    size: int
    generation: int


def to_state(blob: Blob) -> str:
    """The blob as the small JSON text that the store keeps beside its stream."""
    return f'{{"generation":{blob.generation},"size":{blob.size}}}'


def from_state(state: str) -> Blob:
    """The blob that `to_state` wrote."""
    return Blob(**json.loads(state))


@dataclass(frozen=True, slots=True)
class CommitBlob:
    """Make uploaded bytes, `size` in all, the blob `digest`, and link it in the repository.

    `session` is the upload session that this finishes, where there is one.
    """

    repository: RepositoryName
    digest: Digest
    size: int
    session: Session | None = None


def next_generation(found: StreamState) -> int:
    """The generation that an upload of this blob now has: a new one where the last one was given up."""
    if found.state is None:
        return 0
    generation = from_state(found.state).generation
    return generation if found.ref == LIVE else generation + 1


def decide_commit(found: StreamState, command: CommitBlob) -> Decision | Refusal:
    """Make the blob live, unless it is already, link it, and finish the session, which must be open.

    The blob's file must have the generation that is next. A command that makes the blob live meanwhile has
    computed the same one; after any other change, decide again.
    """
    finished = _finished(command)
    if isinstance(finished, Refusal):
        return finished
    digest = command.digest
    blob = Blob(command.size, next_generation(found))
    first = found.version == 0
    committed = new_event(
        blob_stream(digest),
        str(digest),
        BlobCommitted(str(digest), blob.size, blob.generation),
        mode=NONE_YET if first else ENSURE,
        ref=LIVE,
        state=to_state(blob),
    )
    linked = linked_blob(command.repository, digest, Link(blob.size, blob.generation))
    unchanged = RefIs(((found.stream, found.ref), (found.stream, LIVE)))
    return Decision(
        (*finished.events, created(command.repository), committed, linked),
        () if first else (Requirement(unchanged, None),),
    )


def _finished(command: CommitBlob) -> Decision | Refusal:
    if command.session is None:
        return Decision(())
    return decide_finish(command.session, FinishUpload(command.digest, command.size))
