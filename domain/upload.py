"""The upload session: from UploadStarted to committed, cancelled or expired."""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from domain.event import Event, event, to_json, upcaster
from domain.session_id import SessionId


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


def start(happened: UploadStarted, actor: str, proof: str | None = None) -> Upload:
    """The session that UploadStarted opens for `actor`."""
    return Upload(happened.upload, happened.repository, actor, happened.digest_algorithm, proof=proof)


def started_by(said: SessionId, repository: str) -> UploadStarted:
    """The start that a genuine id proves, for the append with the first thing that happens to the session."""
    started_at = said.started_at.isoformat(timespec="milliseconds")
    return UploadStarted(said.upload, repository, said.algorithm, started_at)


def is_over(said: SessionId, now: datetime, expiry: timedelta) -> bool:
    """True if a session without an event has expired, which the time in its id alone decides."""
    return now - said.started_at > expiry


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


class UploadClosed(ValueError):
    """The session is committed, cancelled or expired: it takes nothing more."""


class OutOfOrder(ValueError):
    """A chunk does not begin where the session stands."""


def append_chunk(upload: Upload, offset: int, size: int) -> ChunkAppended:
    """Decide that `size` bytes from `offset` on were stored. Raises UploadClosed or OutOfOrder."""
    _require_open(upload)
    if offset != upload.offset:
        raise OutOfOrder(f"the session stands at {upload.offset}, not at {offset}")
    return ChunkAppended(upload.id, upload.repository, offset, size)


def commit(upload: Upload, digest: str, size: int) -> UploadCommitted:
    """Decide that the session's `size` bytes are the blob `digest`. Raises UploadClosed."""
    _require_open(upload)
    return UploadCommitted(upload.id, upload.repository, digest, size)


def cancel(upload: Upload) -> UploadCancelled:
    """Decide to give the session up. Raises UploadClosed."""
    _require_open(upload)
    return UploadCancelled(upload.id, upload.repository)


def expire(upload: Upload) -> UploadExpired:
    """Decide that the session was idle for too long. Raises UploadClosed."""
    _require_open(upload)
    return UploadExpired(upload.id, upload.repository)


def _require_open(upload: Upload) -> None:
    if not upload.is_open:
        raise UploadClosed(f"the session is {upload.status}")
