"""Blobs on the local disk.

    <data>/blobs/<algorithm>/<first two hex digits>/<hex>.<generation>    one file a blob
    <data>/uploads/<upload id>                                            one file a session

Folders are 0700 and files 0600. Paths are built from validated digests and upload ids only. A file appears under
blobs/ by a rename after its bytes were flushed, so it is whole from its first moment. The folder is flushed
before the caller may append the event that claims it (rule: bytes before events).
"""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from blobstore.checking import BlobChecker, Taken
from blobstore.errors import FULL, Absent, translated
from blobstore.folders import flush_folder, make_folder, make_subfolder
from blobstore.hashing import HashCache, mark_of
from blobstore.interface import BlobMissing, BlobName, BlobStoreUnusable, NoSpace, UploadBusy, UploadMissing
from blobstore.locking import lock_exclusively, stands_at
from blobstore.pace import NO_LARGE_BLOCKS, Allowance
from blobstore.reading import blocks_of, read_exactly
from blobstore.staging import DiskUpload, FaultPoint, no_fault
from domain.digests import ALGORITHMS
from domain.names import InvalidName, UploadId, parse_upload_id

FREE_BYTES_MIN = 16 * 1024 * 1024


class DiskBlobStore:
    """The blob store under one data folder; safe for many threads and processes."""

    def __init__(self, data: Path, *, fault: FaultPoint = no_fault, allowance: Allowance | None = None) -> None:
        self._data = data
        self._blobs = data / "blobs"
        self._blobs_place = str(self._blobs)
        self._uploads = data / "uploads"
        self._fault = fault
        self._allowance = allowance or Allowance()
        self._hashes = HashCache()

    def prepare(self) -> None:
        """Make the folders durably and try them. Raises BlobStoreUnusable, but not for a full disk: it can be read."""
        try:
            make_folder(self._data)
            make_subfolder(self._blobs)
            make_subfolder(self._uploads)
            for algorithm in ALGORITHMS:
                make_subfolder(self._blobs / algorithm)
                self._make_fan(self._blobs / algorithm)
            self._try_out()
        except OSError as problem:
            raise BlobStoreUnusable(
                f"cannot keep blobs in {self._data}: {problem}; give --data a folder on a local disk that this user "
                "may write to"
            ) from problem

    @staticmethod
    def _make_fan(folder: Path) -> None:
        """Make all 256 folders at once, so that no commit has to make one."""
        for number in range(256):
            (folder / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        flush_folder(folder)

    def _try_out(self) -> None:
        """Do once what every commit does: permissions, locks, and a rename from uploads/ to blobs/ on one disk."""
        staged = self._uploads / secrets.token_hex(16)
        target = self._blobs / staged.name
        try:
            descriptor = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            if problem.errno in FULL:
                return
            raise
        try:
            lock_exclusively(descriptor)
            os.rename(staged, target)
        finally:
            os.close(descriptor)
            staged.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises BlobStoreUnusable or NoSpace if nothing could be written now."""
        for folder in (self._blobs, self._uploads):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise BlobStoreUnusable(f"{folder} is missing or cannot be written to by this user")
        with translated():
            found = os.statvfs(self._uploads)
        if found.f_bavail * found.f_frsize < FREE_BYTES_MIN:
            raise NoSpace(f"the disk of {self._uploads} is full")

    def stat(self, name: BlobName) -> int | None:
        """The size in bytes, None if there is no such file."""
        return self._size(self._place(name))

    def read(self, name: BlobName, start: int, length: int, *, large_blocks: bool = True) -> Iterable[bytes]:
        """Blocks of the blob; a list of one piece if it is small. Raises BlobMissing at the call."""
        try:
            with translated():
                descriptor = os.open(self._place(name), os.O_RDONLY | os.O_CLOEXEC)
        except Absent as problem:
            raise BlobMissing(str(name)) from problem
        if os.fstat(descriptor).st_size < start + length:
            os.close(descriptor)
            raise BlobMissing(str(name))
        return blocks_of(descriptor, start, length, self._allowance if large_blocks else NO_LARGE_BLOCKS)

    def read_small(self, name: BlobName, limit: int) -> bytes | None:
        """The whole blob, None if there is none or it is larger than `limit` bytes."""
        try:
            with translated():
                descriptor = os.open(self._place(name), os.O_RDONLY | os.O_CLOEXEC)
        except Absent:
            return None
        try:
            found = os.fstat(descriptor)
            if found.st_size > limit or not stat.S_ISREG(found.st_mode):
                return None
            return read_exactly(descriptor, 0, found.st_size)
        finally:
            os.close(descriptor)

    def checker(self, taken: Taken) -> BlobChecker:
        """A checker of stored bytes. It moves damaged files away and calls `taken` with the size of each block read."""
        return BlobChecker(self._data, self._path, taken)

    def delete(self, name: BlobName) -> None:
        """Remove the blob's file; nothing happens if there is none."""
        with translated():
            self._path(name).unlink(missing_ok=True)

    def create(self, upload: UploadId, *, durable: bool = True) -> None:
        """Make the empty staging file."""
        with translated():
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(self._staging_path(upload), flags, 0o600))
            self._fault("created")
            if durable:
                flush_folder(self._uploads)

    def staged(self, upload: UploadId) -> int | None:
        """The size of the staging file in bytes, None if there is no such file."""
        return self._size(self._staging_path(upload))

    @contextmanager
    def open(
        self, upload: UploadId, offset: int, algorithm: str = "sha256", *, new: bool = False
    ) -> Iterator[DiskUpload]:
        """The staging file, locked against every other writer (rule: one writer a session).

        Its first change cuts it off at `offset`.
        """
        path = self._staging_path(upload)
        descriptor = self._open_locked(path, new)
        try:
            held = os.fstat(descriptor)
            if held.st_size < offset:
                raise UploadMissing(path.name)
            hashes = self._hashes.take(upload, offset, algorithm, mark_of(held))
            staged = DiskUpload(
                path, descriptor, offset, held.st_size == offset, self._path, hashes, self._fault, new=new
            )
            recorded = False
            try:
                yield staged
                recorded = True
            finally:
                self._hashes.give_back(upload, staged.close(recorded=recorded), mark_of(os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    def _open_locked(self, path: Path, new: bool) -> int:
        """The staging file, held alone; the caller closes it.

        A `new` one is made if it is missing, also when somebody removes it between its opening and its locking.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if new else 0)
        while True:
            try:
                with translated():
                    descriptor = os.open(path, flags, 0o600)
            except Absent as problem:
                raise UploadMissing(path.name) from problem
            with ExitStack() as opened:
                opened.callback(os.close, descriptor)
                with translated():
                    lock_exclusively(descriptor)
                if stands_at(path, descriptor):
                    opened.pop_all()
                    return descriptor
                if not new:
                    raise UploadMissing(path.name)

    def discard(self, upload: UploadId) -> None:
        """Remove the staging file unless there is none or somebody holds it."""
        self._discard(upload, float("inf"))

    def discard_stale(self, upload: UploadId, before: datetime) -> bool:
        """Remove the staging file unless somebody holds it or has changed it since."""
        return self._discard(upload, before.timestamp())

    def _discard(self, upload: UploadId, unchanged_since: float) -> bool:
        """Remove the staging file under its lock.

        A writer who holds it renames what its name stands for. So the name must not become free for another file.
        """
        path = self._staging_path(upload)
        try:
            descriptor = self._open_locked(path, new=False)
        except (UploadBusy, UploadMissing):
            return False
        try:
            if os.fstat(descriptor).st_mtime >= unchanged_since:
                return False
            self._hashes.forget(upload)
            with translated():
                path.unlink()
            return True
        finally:
            os.close(descriptor)

    def stale(self, before: datetime) -> Iterator[UploadId]:
        """Staging files that were last changed before a moment."""
        limit = before.timestamp()
        with translated(), os.scandir(self._uploads) as entries:
            for entry in entries:
                try:
                    upload = parse_upload_id(entry.name)
                    changed = entry.stat(follow_symlinks=False).st_mtime
                except (InvalidName, FileNotFoundError):
                    continue
                if changed < limit:
                    yield upload

    def _staging_path(self, upload: UploadId) -> Path:
        return self._uploads / parse_upload_id(upload)

    def _path(self, name: BlobName) -> Path:
        return Path(self._place(name))

    def _place(self, name: BlobName) -> str:
        """The path as text, because on the pull path a Path would cost more than the reading."""
        digest = name.digest
        return f"{self._blobs_place}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{name.generation}"

    @staticmethod
    def _size(path: Path | str) -> int | None:
        try:
            with translated():
                found = os.stat(path)
        except Absent:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None
