"""Checks stored bytes against their digests, and moves damaged files out of everybody's way.

    <data>/quarantine/<algorithm>-<hex>.<generation>.<random>    one file each time that damage was found

A blob's file is never changed in place: a commit renames another file over it. So a file is known by its inode while it
is held open. A damaged file is moved only if it is still the one at its path. The checker looks at that under a lock
that every commit takes for its rename.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from blobstore.errors import Absent, translated
from blobstore.folders import flush_folder, make_folder
from blobstore.interface import BlobName, BlobStoreError
from blobstore.locking import folder_held_alone, stands_at
from domain.digests import Digest, new_hash

QUARANTINE = "quarantine"
_BLOCK_BYTES = 512 * 1024

Taken = Callable[[int], None]


class Damage(StrEnum):
    """The kinds of damage to a blob's file."""

    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    UNREADABLE = "unreadable"
    WRONG_BYTES = "wrong bytes"


@dataclass(frozen=True, slots=True)
class Found:
    """A damaged blob, with the size in bytes and the new place of its file, if there is one."""

    damage: Damage
    size: int | None
    moved_to: Path | None


class Pace:
    """Limits reading to so many bytes a second; None is no limit."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._due = time.monotonic()

    def __call__(self, taken: int) -> None:
        """Sleep until `taken` more bytes are due."""
        if self._bytes_per_s is None:
            return
        now = time.monotonic()
        self._due = max(self._due, now) + taken / self._bytes_per_s
        time.sleep(max(0.0, self._due - now))


class BlobChecker:
    """Checks the blobs of a data folder while servers use it. `taken` is called with the size of each block read."""

    def __init__(self, data: Path, path_of: Callable[[BlobName], Path], taken: Taken) -> None:
        self._quarantine = data / QUARANTINE
        self._path_of = path_of
        self._taken = taken

    def check(self, name: BlobName, size: int) -> Found | None:
        """Check the blob's file. Answers None if it is whole; otherwise moves it away and tells the damage.

        A file that was replaced meanwhile is checked again. Raises BlobStoreError if it cannot be moved.
        """
        path = self._path_of(name)
        while True:
            try:
                with translated():
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except Absent:
                return Found(Damage.MISSING, None, None)
            try:
                # One wrong reading may be a fault of the reading, so only a file that is wrong twice is moved.
                damage = self._damage(descriptor, name.digest, size) and self._damage(descriptor, name.digest, size)
                if damage is None:
                    return None
                moved = self._move_away(path, descriptor, name)
                if moved is not None:
                    return Found(damage, os.fstat(descriptor).st_size, moved)
            finally:
                os.close(descriptor)

    def _damage(self, descriptor: int, digest: Digest, size: int) -> Damage | None:
        if os.fstat(descriptor).st_size != size:
            return Damage.WRONG_SIZE
        hashing = new_hash(digest.algorithm)
        position = 0
        while position < size:
            try:
                block = os.pread(descriptor, _BLOCK_BYTES, position)
            except OSError:
                return Damage.UNREADABLE
            if not block:
                return Damage.WRONG_SIZE
            hashing.update(block)
            position += len(block)
            self._taken(len(block))
        return None if hashing.hexdigest() == digest.hex else Damage.WRONG_BYTES

    def _move_away(self, path: Path, descriptor: int, name: BlobName) -> Path | None:
        """Move the file to quarantine and answer its new path; None if another file, or none, is at its path by now."""
        digest = name.digest
        target = self._quarantine / f"{digest.algorithm}-{digest.hex}.{name.generation}.{secrets.token_hex(4)}"
        try:
            with translated():
                make_folder(self._quarantine)
                with folder_held_alone(path.parent):
                    if not stands_at(path, descriptor):
                        return None
                    os.rename(path, target)
                flush_folder(self._quarantine)
                flush_folder(path.parent)
        except Absent:
            return None
        except BlobStoreError as problem:
            raise BlobStoreError(f"{name} is damaged and cannot be moved to {target.parent}: {problem}") from problem
        return target
