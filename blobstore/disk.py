"""Blobs on the local disk.

    <data>/blobs/<algorithm>/<first two hex digits>/<hex>.<generation>    one file a blob
    <data>/uploads/<upload id>                                            one file a session

Folders are 0700 and files 0600. Paths are only ever built from validated digests and upload ids. A file appears
under blobs/ by rename, after its bytes were flushed, so that it is whole from its first moment; the folder is flushed
before the caller may append the event that claims it (I1).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from blobstore.errors import translated
from blobstore.folders import flush_folder, make_folder
from blobstore.hashing import HashCache
from blobstore.interface import BlobMissing, BlobName, BlobStoreError, BlobStoreUnusable, NoSpace, UploadMissing
from blobstore.staging import DiskUpload, FaultPoint, lock_exclusively, no_fault
from domain.digests import ALGORITHMS
from domain.names import InvalidName, UploadId, parse_upload_id

READ_WHOLE_BYTES_MAX = 1024 * 1024
READ_BLOCK_BYTES = 512 * 1024
FREE_BYTES_MIN = 16 * 1024 * 1024


class DiskBlobStore:
    """The blob store under one data folder; safe for many threads and processes."""

    def __init__(self, data: Path, *, fault: FaultPoint = no_fault) -> None:
        self._blobs = data / "blobs"
        self._uploads = data / "uploads"
        self._fault = fault
        self._hashes = HashCache()

    def prepare(self) -> None:
        """Make the folders, durably. Raises BlobStoreUnusable."""
        try:
            make_folder(self._uploads)
            for algorithm in ALGORITHMS:
                self._make_fan(self._blobs / algorithm)
        except OSError as problem:
            raise BlobStoreUnusable(
                f"cannot make {problem.filename}: {problem.strerror}; give --data a folder that this user may write to"
            ) from problem
        self.check()

    @staticmethod
    def _make_fan(folder: Path) -> None:
        """All 256 folders at once, so that no commit has to make one."""
        make_folder(folder)
        for number in range(256):
            (folder / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        flush_folder(folder)

    def check(self) -> None:
        """Raises BlobStoreUnusable or NoSpace if nothing could be written now."""
        for folder in (self._blobs, self._uploads):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise BlobStoreUnusable(f"{folder} is missing or cannot be written to by this user")
        room = os.statvfs(self._uploads)
        if room.f_bavail * room.f_frsize < FREE_BYTES_MIN:
            raise NoSpace(f"the disk of {self._uploads} is full")

    def stat(self, name: BlobName) -> int | None:
        """The size in bytes, None if there is no such file."""
        try:
            found = os.stat(self._path(name))
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: BlobName, start: int, length: int) -> Iterator[bytes]:
        """Blocks of the blob; one piece if it is small. Raises BlobMissing at the call."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as problem:
            raise BlobMissing(str(name)) from problem
        blocks = _Blocks(descriptor, start, length)
        if os.fstat(descriptor).st_size < start + length:
            blocks.close()
            raise BlobMissing(str(name))
        if length > READ_WHOLE_BYTES_MAX:
            return blocks
        try:
            return iter((_read_fully(descriptor, start, length),))
        finally:
            blocks.close()

    def read_small(self, name: BlobName, limit: int) -> bytes | None:
        """The whole blob, None if there is none or it is larger than `limit` bytes."""
        size = self.stat(name)
        if size is None or size > limit:
            return None
        return b"".join(self.read(name, 0, size))

    def delete(self, name: BlobName) -> None:
        """Remove the blob's file; nothing happens if there is none."""
        self._path(name).unlink(missing_ok=True)

    def create(self, upload: UploadId, *, durable: bool = True) -> None:
        """Make the empty staging file."""
        with translated():
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(self._uploads / upload, flags, 0o600))
            if durable:
                flush_folder(self._uploads)

    @contextmanager
    def open(self, upload: UploadId, offset: int, algorithm: str = "sha256") -> Iterator[DiskUpload]:
        """The staging file, locked against every other writer and cut off at `offset` (S26)."""
        path = self._uploads / upload
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as problem:
            raise UploadMissing(upload) from problem
        try:
            lock_exclusively(descriptor)
            self._require_same_file(path, descriptor, offset)
            staged = DiskUpload(
                path, descriptor, offset, self._path, self._hashes.take(upload, offset, algorithm), self._fault
            )
            with translated():
                os.ftruncate(descriptor, offset)
            try:
                yield staged
            finally:
                self._hashes.give_back(upload, staged.finished_hashes())
        finally:
            os.close(descriptor)

    def discard(self, upload: UploadId) -> None:
        """Remove the staging file; nothing happens if there is none."""
        self._hashes.forget(upload)
        (self._uploads / upload).unlink(missing_ok=True)

    def stale(self, before: datetime) -> Iterator[UploadId]:
        """Staging files that were last changed before a moment."""
        limit = before.timestamp()
        with os.scandir(self._uploads) as entries:
            for entry in entries:
                try:
                    upload = parse_upload_id(entry.name)
                    changed = entry.stat(follow_symlinks=False).st_mtime
                except (InvalidName, FileNotFoundError):
                    continue
                if changed < limit:
                    yield upload

    def _path(self, name: BlobName) -> Path:
        digest = name.digest
        return self._blobs / digest.algorithm / digest.hex[:2] / f"{digest.hex}.{name.generation}"

    @staticmethod
    def _require_same_file(path: Path, descriptor: int, offset: int) -> None:
        """The file may have been committed or discarded between open and lock."""
        held = os.fstat(descriptor)
        try:
            standing = os.stat(path)
        except FileNotFoundError as problem:
            raise UploadMissing(path.name) from problem
        if (held.st_ino, held.st_dev) != (standing.st_ino, standing.st_dev) or held.st_size < offset:
            raise UploadMissing(path.name)


class _Blocks:
    """Blocks of an open file; closes it at the end or when whoever reads gives up."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor: int | None = descriptor
        self._position = start
        self._left = length

    def __iter__(self) -> "_Blocks":
        return self

    def __next__(self) -> bytes:
        if self._descriptor is None or self._left == 0:
            self.close()
            raise StopIteration
        block = os.pread(self._descriptor, min(READ_BLOCK_BYTES, self._left), self._position)
        if not block:
            self.close()
            raise BlobStoreError("a blob's file became shorter while it was read")
        self._position += len(block)
        self._left -= len(block)
        return block

    def close(self) -> None:
        """Close the file; may be called any number of times."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _read_fully(descriptor: int, start: int, length: int) -> bytes:
    pieces = []
    while length:
        piece = os.pread(descriptor, length, start)
        if not piece:
            raise BlobMissing("the file became shorter while it was read")
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
