"""One writer's hold on a session's staging file: write, hash beside it, commit by rename."""

import fcntl
import os
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from blobstore.errors import translated
from blobstore.folders import flush_folder
from blobstore.hashing import RunningHashes
from blobstore.interface import BlobName, UploadBusy
from domain.digests import Digest, new_hash

FaultPoint = Callable[[str], None]

# Below this, starting a thread costs more than hashing beside the writing gains.
_HASH_BESIDE_BYTES = 1024 * 1024
_BLOCKS_AHEAD = 4
_REHASH_BLOCK_BYTES = 1024 * 1024
# struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("hhqqi4x")
_F_OFD_SETLK = 37


def no_fault(step: str) -> None:
    """Production's fault point: `step` passes."""


def lock_exclusively(descriptor: int) -> None:
    """Lock the open file against every other opening of it, without waiting; raises UploadBusy.

    An open-file-description lock: it holds between threads too, and the kernel drops it with the last descriptor.
    """
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError) as problem:
        raise UploadBusy("another request is writing to this session") from problem


class DiskUpload:
    """The staged bytes of one session while one request holds them; implements StagedUpload."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        offset: int,
        path_of: Callable[[BlobName], Path],
        hashes: RunningHashes | None,
        fault: FaultPoint,
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = self._start = offset
        self._path_of = path_of
        self._hashes = hashes
        self._hashes_at_start = hashes.copy() if hashes is not None else None
        self._fault = fault
        self._hasher: ThreadPoolExecutor | None = None
        self._hashing: list[Future[None]] = []
        self._dirty = True
        self._committed = False

    @property
    def size(self) -> int:
        """Bytes staged so far."""
        return self._size

    def write(self, block: bytes) -> None:
        """Put a block behind what is staged; large bodies are hashed by a thread meanwhile."""
        self._dirty = True
        self._hash(block)
        view = memoryview(block)
        with translated():
            while view:
                written = os.pwrite(self._descriptor, view, self._size)
                self._size += written
                view = view[written:]
        self._fault("written")

    def sync(self) -> None:
        """Flush the bytes to the disk."""
        if self._dirty:
            with translated():
                os.fdatasync(self._descriptor)
            self._dirty = False
        self._fault("synced")

    def rollback(self, offset: int) -> None:
        """Cut the file off at `offset`."""
        self._settle()
        if offset == self._start:
            self._hashes = self._hashes_at_start.copy() if self._hashes_at_start is not None else None
        elif offset != self._size:
            self._hashes = None
        with translated():
            os.ftruncate(self._descriptor, offset)
        self._size = offset
        self._dirty = True

    def digest(self, algorithm: str) -> Digest:
        """The digest of everything staged: the running one, or the file hashed again."""
        self._settle()
        if self._hashes is not None and algorithm in self._hashes.hashes:
            return Digest(algorithm, self._hashes.hashes[algorithm].hexdigest())
        again = new_hash(algorithm)
        position = 0
        with translated():
            while block := os.pread(self._descriptor, _REHASH_BLOCK_BYTES, position):
                again.update(block)
                position += len(block)
        return Digest(algorithm, again.hexdigest())

    def commit(self, name: BlobName) -> None:
        """Flush, rename into place, flush the folder."""
        self.sync()
        target = self._path_of(name)
        with translated():
            self._fault("before rename")
            os.rename(self._path, target)
            self._fault("renamed")
            flush_folder(target.parent)
        self._path = target
        self._committed = True
        self._fault("committed")

    def finished_hashes(self) -> RunningHashes | None:
        """End the hashing; the hashes over all bytes if the session goes on and they are complete."""
        self._settle()
        if self._hasher is not None:
            self._hasher.shutdown()
        if self._committed or self._hashes is None or self._hashes.size != self._size:
            return None
        return self._hashes

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
