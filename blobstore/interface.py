"""The bytes as callers know them: names, sizes and blocks, but no paths and no file descriptors.

An object store can stand behind the same interface.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.digests import Digest
from domain.names import UploadId

# A server may rely for so many seconds on having seen a blob's file. A check that takes one away waits as long before
# it says so.
SEEN_FOR_S = 2.0


class BlobStoreError(Exception):
    """Base of the errors of a blob store. One that is none of the kinds below is an input or output error."""


class BlobMissing(BlobStoreError):
    """There is no such blob, or it is shorter than asked."""


class UploadBusy(BlobStoreError):
    """Another request, perhaps of another process, is writing to the session."""


class UploadMissing(BlobStoreError):
    """The session's staged bytes are gone, or fewer than the log says."""


class NoSpace(BlobStoreError):
    """The storage is full."""


class BlobStoreUnusable(BlobStoreError):
    """The storage cannot be used at all; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BlobName:
    """The name of stored bytes: a blob's digest and the generation of its file (rule: generations)."""

    digest: Digest
    generation: int

    def __str__(self) -> str:
        return f"{self.digest}.{self.generation}"


class StagedUpload(Protocol):
    """The staged bytes of one session, held by one writer at a time."""

    @property
    def size(self) -> int:
        """Bytes staged so far, with those of this writer."""

    @property
    def ends_at_offset(self) -> bool:
        """True if nothing was staged behind the offset of the opening when the lock was taken.

        Then no chunk behind that offset was ever recorded: of an open session recorded bytes are never taken away, but
        by a commit that did not come to its end.
        """

    def write(self, block: bytes) -> None:
        """Put a block behind what is staged."""

    def sync(self) -> None:
        """Make everything written durable."""

    def rollback(self, offset: int) -> None:
        """Forget everything behind `offset`. Of a `new` session the place goes too, and nothing may be written then."""

    def remove(self) -> None:
        """Remove the staged bytes, recorded ones too, with their place. Nothing may be written then."""

    def digest(self, algorithm: str) -> Digest:
        """The digest of everything staged."""

    def commit(self, name: BlobName) -> None:
        """Make the staged bytes the blob `name`, durably, over whatever is there (rule: a push heals).

        May be called again with another generation, even if the first one has been unlinked meanwhile
        (rule: generations). Nothing may be written afterwards. Raises UploadMissing if the staged bytes are gone.
        """


class BlobStore(Protocol):
    """Bytes by digest, and the staging of uploads."""

    def prepare(self) -> None:
        """Make what the store needs before first use. Raises BlobStoreUnusable."""

    def check(self) -> None:
        """Raises BlobStoreUnusable or NoSpace if nothing could be written now."""

    def stat(self, name: BlobName) -> int | None:
        """The size in bytes, None if there is no such blob."""

    def read(self, name: BlobName, start: int, length: int, *, large_blocks: bool = True) -> Iterable[bytes]:
        """Blocks of the blob from `start` on: a list of one piece if that is small, else an iterator to be closed.

        Only a few readers at a time get large blocks; a caller that reads several parts for one answer must not ask for
        them. Raises BlobMissing at the call, not while blocks are taken.
        """

    def read_small(self, name: BlobName, limit: int) -> bytes | None:
        """The whole blob, None if there is none or it is larger than `limit` bytes."""

    def delete(self, name: BlobName) -> None:
        """Remove the blob; nothing happens if there is none."""

    def create(self, upload: UploadId, *, durable: bool = True) -> None:
        """Make an empty staging place; a durable one survives a loss of power before its first byte."""

    def staged(self, upload: UploadId) -> int | None:
        """The number of staged bytes of a session, None if it has no staging place (any more)."""

    def open(
        self, upload: UploadId, offset: int, algorithm: str = "sha256", *, new: bool = False
    ) -> AbstractContextManager[StagedUpload]:
        """Hold the session alone, to write behind its first `offset` bytes. Raises UploadBusy, UploadMissing.

        With `new` the log knows nothing of the session, as far as the caller has seen. The place is made if it is
        missing, so UploadMissing is not raised, and it survives a loss of power from `sync` on.

        The first change cuts off what is staged beyond them. Until then the holder can ask the log once more, now that
        nobody else writes, and leave everything as it is if `offset` is outdated (rule: one writer a session).
        If the block ends without an exception, the log has all that was written; after an exception nothing of it
        counts. `algorithm` is the digest that the client is likely to ask for.
        """

    def discard(self, upload: UploadId) -> None:
        """Remove the staged bytes of a session that has ended; nothing happens if there are none.

        Those of a session that a request holds stay: only the holder takes their place away, because another writer
        could get it otherwise (rule: one writer a session).
        """

    def discard_stale(self, upload: UploadId, before: datetime) -> bool:
        """The same unless a request has changed the session since; answers whether bytes went."""

    def stale(self, before: datetime) -> Iterator[UploadId]:
        """Sessions whose staged bytes were last changed before a moment."""
