"""One writer's hold on a session's staging file: write, hash beside it, commit by rename."""

import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from blobstore.errors import translated
from blobstore.folders import flush_folder
from blobstore.hashing import RunningHashes
from blobstore.interface import BlobName, UploadMissing
from blobstore.locking import folder_shared, stands_at
from domain.digests import Digest, new_hash

FaultPoint = Callable[[str], None]

# Below this size a thread costs more than it saves by hashing beside the writing.
_HASH_BESIDE_BYTES = 1024 * 1024
_BLOCKS_AHEAD = 4
# After so many bytes the disk is told to begin, so that the flush at the end need not wait for all of them.
_WRITE_BEHIND_BYTES = 16 * 1024 * 1024
_REREAD_BLOCK_BYTES = 1024 * 1024


def no_fault(step: str) -> None:
    """The fault point of production, where every step passes."""


class DiskUpload:
    """The staged bytes of one session while one request holds them; implements StagedUpload.

    The first change cuts off the bytes behind `offset`. Until then the caller may find, under the lock, that the log
    has moved on and that those bytes count (rule: one writer a session).
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        offset: int,
        ends_at_offset: bool,
        path_of: Callable[[BlobName], Path],
        hashes: RunningHashes | None,
        fault: FaultPoint,
        *,
        new: bool = False,
    ) -> None:
        self._path = path
        self._staging_folder = path.parent
        self._descriptor = descriptor
        self._size = self._start = self._begun = offset
        self._ends_at_offset = ends_at_offset
        self._path_of = path_of
        self._hashes = hashes
        self._hashes_at_start = hashes.copy() if hashes is not None else None
        self._fault = fault
        self._hasher: ThreadPoolExecutor | None = None
        self._hashing: list[Future[None]] = []
        # If nothing lies behind the offset, all bytes are recorded, and so durable already.
        self._cut = ends_at_offset
        self._dirty = not ends_at_offset
        self._committed = False
        # Nothing is recorded of a new one: its name may not be durable, and it goes again if nothing comes of it.
        self._new = new

    @property
    def size(self) -> int:
        """Bytes staged so far."""
        return self._size

    @property
    def ends_at_offset(self) -> bool:
        """True if nothing was staged behind `offset` when the file was locked."""
        return self._ends_at_offset

    def write(self, block: bytes) -> None:
        """Put a block behind what is staged; large bodies are hashed by a thread meanwhile."""
        self._cut_off()
        self._dirty = True
        self._hash(block)
        view = memoryview(block)
        with translated():
            while view:
                written = os.pwrite(self._descriptor, view, self._size)
                self._size += written
                view = view[written:]
            self._write_behind()
        self._fault("written")

    def _write_behind(self) -> None:
        """Let the system begin to write what it has taken of a large body.

        Linux then begins to write dirty pages, and drops some written ones from the page cache (mm/fadvise.c). Systems
        that ignore the advice write when they like.
        """
        length = self._size - self._begun
        if length >= _WRITE_BEHIND_BYTES and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # advice: without it the bytes are as safe
                os.posix_fadvise(self._descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._size

    def sync(self) -> None:
        """Flush the bytes to the disk, and the name of a file that may be new."""
        self._flush()
        if self._new:
            with translated():
                flush_folder(self._staging_folder)
        self._fault("synced")

    def _flush(self) -> None:
        if self._dirty:
            with translated():
                os.fdatasync(self._descriptor)
            self._dirty = False

    def rollback(self, offset: int) -> None:
        """Cut the file off at `offset`; a new one of which nothing is left is removed."""
        assert not self._committed, "a blob is never changed"
        if self._new and offset == 0:
            self.remove()
            return
        self._settle()
        if offset == self._start:
            self._hashes = self._hashes_at_start.copy() if self._hashes_at_start is not None else None
        elif self._hashes is not None and self._hashes.size != offset:
            self._hashes = None
        self._size = self._begun = offset
        self._cut = False
        self._cut_off()

    def remove(self) -> None:
        """Take the file away. Another request that has opened it meanwhile finds that out once it gets the lock."""
        assert not self._committed, "a blob is never changed"
        self._settle()
        self._hashes = self._hashes_at_start = None
        if stands_at(self._path, self._descriptor):
            with translated():
                self._path.unlink()

    def digest(self, algorithm: str) -> Digest:
        """The digest of everything staged: the running one, or the file hashed again."""
        self._settle()
        running = self._hashes
        if running is not None and running.size == self._size and algorithm in running.hashes:
            return Digest(algorithm, running.hashes[algorithm].hexdigest())
        again = new_hash(algorithm)
        self._reread(again.update)
        return Digest(algorithm, again.hexdigest())

    def commit(self, name: BlobName) -> None:
        """Flush, rename into place, flush the folder."""
        if not self._committed:
            self._cut_off()
        self._flush()
        self._fault("synced")
        target = self._path_of(name)
        with translated():
            self._fault("before rename")
            # A check that moves a damaged file away must not take the file that has just replaced it.
            with folder_shared(target.parent):
                self._move(target)
            self._fault("renamed")
            flush_folder(target.parent)
        self._fault("committed")

    def close(self, *, recorded: bool) -> RunningHashes | None:
        """End the hashing. Answers the hashes to keep for the session's next request, if there are any.

        Bytes that the log does not have may be replaced by any process without this one knowing it. So the bytes that
        this writer added count only if they are `recorded` (rule: hashes of recorded bytes).
        """
        self._settle()
        if self._hasher is not None:
            self._hasher.shutdown()
        if self._committed:
            return None
        if not recorded:
            return self._hashes_at_start
        return self._hashes if self._hashes is not None and self._hashes.size == self._size else None

    def _cut_off(self) -> None:
        assert not self._committed, "a blob is never changed"
        if not self._cut:
            with translated():
                os.ftruncate(self._descriptor, self._size)
            self._cut = True
            self._dirty = True

    def _move(self, target: Path) -> None:
        """Rename what this writer wrote and nothing else.

        Only the holder of a staging file takes its name away, so the name stands for the file that was locked. A person
        who removes files by hand may have freed the name for another writer's file.
        """
        if not self._committed and not stands_at(self._path, self._descriptor):
            raise UploadMissing(self._path.name)
        try:
            os.rename(self._path, target)
        except FileNotFoundError as problem:
            if not self._committed:
                raise UploadMissing(self._path.name) from problem
            # A collector has unlinked the generation that was committed first, or another upload has moved it on.
            self._path = self._copy()
            os.rename(self._path, target)
        self._path = target
        self._committed = True

    def _copy(self) -> Path:
        """Make a durable copy under a name of its own, because the session's name may be another writer's by now."""
        path = self._staging_folder / secrets.token_hex(16)
        with open(path, "xb", opener=_open_private) as copy:
            self._reread(copy.write)
            copy.flush()
            os.fdatasync(copy.fileno())
        return path

    def _reread(self, take: Callable[[bytes], object]) -> None:
        position = 0
        with translated():
            while position < self._size:
                block = os.pread(self._descriptor, min(_REREAD_BLOCK_BYTES, self._size - position), position)
                if not block:
                    raise UploadMissing(f"{self._path.name} became shorter")
                take(block)
                position += len(block)

    def _hash(self, block: bytes) -> None:
        if self._hashes is None:
            return
        if self._hasher is None and self._size - self._start < _HASH_BESIDE_BYTES:
            self._hashes.update(block)
            return
        if self._hasher is None:
            self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        if len(self._hashing) >= _BLOCKS_AHEAD:
            self._hashing.pop(0).result()
        self._hashing.append(self._hasher.submit(self._hashes.update, block))

    def _settle(self) -> None:
        while self._hashing:
            self._hashing.pop(0).result()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
