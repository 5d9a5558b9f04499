"""The upload session: from UploadStarted to committed, cancelled or expired."""

import json
from dataclasses import dataclass, replace

from domain.event import Event, event, to_json


@event("UploadStarted")
class UploadStarted(Event):
    """A client opened a session. `digest_algorithm` is its hint, if it gave one."""

    upload: str
    repository: str
    digest_algorithm: str | None = None


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
    """A session as it stands: `offset` bytes are durable; `digest` is set once it is committed."""

    id: str
    repository: str
    actor: str
    digest_algorithm: str | None = None
    offset: int = 0
    status: str = "open"
    digest: str | None = None

    @property
    def is_open(self) -> bool:
        """True if the session still takes bytes."""
        return self.status == "open"

    def is_committed_as(self, digest: str) -> bool:
        """True if the session has become the blob `digest`."""
        return self.status == "committed" and self.digest == digest


def start(happened: UploadStarted, actor: str) -> Upload:
    """The session that UploadStarted opens for `actor`."""
    return Upload(happened.upload, happened.repository, actor, happened.digest_algorithm)


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
    return to_json(
        {
            "id": upload.id,
            "repository": upload.repository,
            "actor": upload.actor,
            "digest_algorithm": upload.digest_algorithm,
            "offset": upload.offset,
            "status": upload.status,
            "digest": upload.digest,
        }
    )


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
