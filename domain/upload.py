"""The upload session: from UploadStarted to committed, cancelled or expired."""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from domain.changes import HISTORY, KEEP, NOWHERE_YET, Exact, StreamState, new_event
from domain.decision import Decision, Reason, Refusal
from domain.digests import Digest
from domain.event import Event, event, to_json, upcaster
from domain.names import RepositoryName, UploadId
from domain.session_id import SessionId
from domain.streams import OPEN, upload_stream


@event("UploadStarted", version=2)
class UploadStarted(Event):
    """A client opened a session. `digest_algorithm` is its hint, if it gave one.

    `started_at` (ISO 8601) is the time that the session's id says, where the event comes later than the answer did.
    """

    upload: str
    repository: str
    digest_algorithm: str | None = None
    started_at: str | None = None

    @property
    def written_version(self) -> int:
        """The first version knows no `started_at`: there the event is appended before the answer."""
        return 1 if self.started_at is None else 2


@upcaster("UploadStarted", from_version=1)
def _appended_at_the_start(values: dict[str, Any]) -> dict[str, Any]:
    return values


@event("ChunkAppended")
class ChunkAppended(Event):
    """`size` bytes after `offset` are durable in the session's staging file."""

    upload: str
    repository: str
    offset: int
    size: int


@event("UploadCommitted")
class UploadCommitted(Event):
    """The session's bytes, `size` in all, became the blob `digest`."""

    upload: str
    repository: str
    digest: str
    size: int


@event("UploadCancelled")
class UploadCancelled(Event):
    """The client gave the session up."""

    upload: str
    repository: str


@event("UploadExpired")
class UploadExpired(Event):
    """Nothing happened in the session for longer than the upload expiry."""

    upload: str
    repository: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A session as it stands: `offset` bytes are durable; `digest` is set once it is committed.

    `proof` is a hash of the id that the client holds, where that is more than `id` (domain/session_id.py).
    """

    id: str
    repository: str
    actor: str
    digest_algorithm: str | None = None
    offset: int = 0
    status: str = "open"
    digest: str | None = None
    proof: str | None = None

    @property
    def is_open(self) -> bool:
        """True if the session still takes bytes."""
        return self.status == "open"

    def is_committed_as(self, digest: str) -> bool:
        """True if the session has become the blob `digest`."""
        return self.status == "committed" and self.digest == digest


def evolve(upload: Upload, happened: Event) -> Upload:
    """The session after an event of its stream; raises ValueError for an event that is not a session's."""
    match happened:
        case ChunkAppended():
            return replace(upload, offset=happened.offset + happened.size)
        case UploadCommitted():
            return replace(upload, status="committed", offset=happened.size, digest=happened.digest)
        case UploadCancelled():
            return replace(upload, status="cancelled")
        case UploadExpired():
            return replace(upload, status="expired")
        case _:
            raise ValueError(f"{happened.TYPE} does not belong to an upload that has started")


def to_state(upload: Upload) -> str:
    """The session as the small JSON text that the store keeps beside its stream."""
    values = {
        "id": upload.id,
        "repository": upload.repository,
        "actor": upload.actor,
        "digest_algorithm": upload.digest_algorithm,
        "offset": upload.offset,
        "status": upload.status,
        "digest": upload.digest,
    }
    # The release before reads states of sessions that were opened its way.
    return to_json(values if upload.proof is None else {**values, "proof": upload.proof})


def from_state(state: str) -> Upload:
    """The session that `to_state` wrote."""
    return Upload(**json.loads(state))


@dataclass(frozen=True, slots=True)
class Session:
    """A session to decide on: the upload, the version of its stream, and the time of its last event if the log told it.

    `started` is the start that its id proves, where the log has nothing of the session. Its version is 0 then, and the
    start is appended with the first thing that happens to it. `log` is the one in which its stream stands, or shall.
    """

    version: int
    upload: Upload
    started: UploadStarted | None = None
    recorded_at: datetime | None = None
    log: int = HISTORY

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return upload_stream(self.upload.id)

    def is_idle(self, expiry: timedelta, now: datetime) -> bool:
        """True if nothing was recorded of it for longer than `expiry`, as the log told."""
        return self.recorded_at is not None and now - self.recorded_at > expiry


def recorded_session(found: StreamState) -> Session | None:
    """The session that stands in a stream of uploads, open or ended; None if the log has nothing of it."""
    if found.state is None:
        return None
    return Session(found.version, from_state(found.state), recorded_at=found.recorded_at, log=found.log)


def proved_session(
    said: SessionId, repository: RepositoryName, actor: str, proof: str | None, log: int = HISTORY
) -> Session:
    """The session of a genuine id of which no log has anything; it begins in `log`."""
    started_at = said.started_at.isoformat(timespec="milliseconds")
    started = UploadStarted(said.upload, repository, said.algorithm, started_at)
    return Session(0, _opened(started, actor, proof), started, log=log)


def has_lapsed(said: SessionId, expiry: timedelta, now: datetime) -> bool:
    """True if a session without an event has expired, which the time in its id alone decides."""
    return now - said.started_at > expiry


@dataclass(frozen=True, slots=True)
class UploadEnded(Reason):
    """The session is committed, cancelled or expired: it takes nothing more."""


@dataclass(frozen=True, slots=True)
class OutOfOrder(Reason):
    """The chunk does not begin at `offset`, where the session stands."""

    offset: int


@dataclass(frozen=True, slots=True)
class StillUsed(Reason):
    """Something has happened in the session too recently for it to expire."""


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """Open a session by an event. Most sessions have no event yet when they are opened: their id proves them."""

    upload: UploadId
    repository: RepositoryName
    actor: str
    digest_algorithm: str | None = None
    log: int = HISTORY


def decide_opening(command: OpenUpload) -> Decision:
    """Open the session, whose id nobody else has."""
    started = UploadStarted(command.upload, command.repository, command.digest_algorithm)
    state = to_state(_opened(started, command.actor))
    stream = upload_stream(command.upload)
    event = new_event(stream, command.repository, started, mode=NOWHERE_YET, ref=OPEN, state=state, log=command.log)
    return Decision((event,))


@dataclass(frozen=True, slots=True)
class AppendChunk:
    """Put `size` bytes, which are durable, behind the `offset` bytes of the session."""

    offset: int
    size: int


def check_chunk(upload: Upload, offset: int) -> Refusal | None:
    """Refuse a chunk that begins at `offset`, if the session does not take one there; may be asked before it comes."""
    if upload.is_open and offset != upload.offset:
        return Refusal((OutOfOrder(upload.offset),))
    return _check_open(upload)


def decide_chunk(session: Session, command: AppendChunk) -> Decision | Refusal:
    """Record the chunk if the session is open and stands where the chunk begins."""
    return check_chunk(session.upload, command.offset) or _decided(session, _appended(session.upload, command))


def with_chunk(session: Session, command: AppendChunk) -> Session:
    """The session once the chunk is recorded."""
    appended = 1 if session.started is None else 2
    upload = evolve(session.upload, _appended(session.upload, command))
    return Session(session.version + appended, upload, log=session.log)


@dataclass(frozen=True, slots=True)
class FinishUpload:
    """End the session: its bytes, `size` in all, are the blob `digest`."""

    digest: Digest
    size: int


def decide_finish(session: Session, command: FinishUpload) -> Decision | Refusal:
    """Finish the session if it is open. The blob is made live in the same append (`domain/blob.py`)."""
    upload = session.upload
    happened = UploadCommitted(upload.id, upload.repository, str(command.digest), command.size)
    return _check_open(upload) or _decided(session, happened)


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """Give the session up, as its client wants."""


def decide_cancellation(session: Session, command: CancelUpload) -> Decision | Refusal:
    """Cancel the session if it is open."""
    upload = session.upload
    return _check_open(upload) or _decided(session, UploadCancelled(upload.id, upload.repository))


@dataclass(frozen=True, slots=True)
class ExpireUpload:
    """Give the session up if nothing has happened in it for longer than `expiry`."""

    expiry: timedelta


def decide_expiry(session: Session, command: ExpireUpload, now: datetime) -> Decision | Refusal:
    """Expire the session if it is open and was idle for so long."""
    upload = session.upload
    if not session.is_idle(command.expiry, now):
        return Refusal((StillUsed(),))
    return _check_open(upload) or _decided(session, UploadExpired(upload.id, upload.repository))


def _opened(happened: UploadStarted, actor: str, proof: str | None = None) -> Upload:
    return Upload(happened.upload, happened.repository, actor, happened.digest_algorithm, proof=proof)


def _appended(upload: Upload, command: AppendChunk) -> ChunkAppended:
    return ChunkAppended(upload.id, upload.repository, command.offset, command.size)


def _check_open(upload: Upload) -> Refusal | None:
    return None if upload.is_open else Refusal((UploadEnded(),))


def _decided(session: Session, happened: Event) -> Decision:
    """The event, behind the start of the session if the log does not have that yet, on the session as it was seen."""
    upload = evolve(session.upload, happened)
    event = new_event(
        session.stream,
        upload.repository,
        happened,
        mode=Exact(session.version) if session.started is None else NOWHERE_YET,
        ref=KEEP if upload.is_open else None,
        state=to_state(upload),
        log=session.log,
    )
    if session.started is None:
        return Decision((event,))
    return Decision((new_event(session.stream, upload.repository, session.started, ref=OPEN, log=session.log), event))
