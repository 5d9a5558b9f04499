"""Locks of files and folders between threads and processes, which end with their holder.

The lock of a staging file keeps out a second writer, and gives its holder alone the right to take the file's name away
(rule: one writer a session).
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blobstore.errors import Absent, translated
from blobstore.interface import UploadBusy

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("hhqqi4x")
# Known to the module on Linux only.
_SET_OFD_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)


def lock_exclusively(descriptor: int) -> None:
    """Lock the open file against every other opening of it, without waiting; raises UploadBusy.

    The lock belongs to the open file description. So it holds between threads too, and the kernel drops it with the
    last descriptor, however the process ends. On systems without such locks flock() does the same on local disks.
    """
    try:
        if _SET_OFD_LOCK is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.fcntl(descriptor, _SET_OFD_LOCK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as problem:
        if problem.errno not in _BUSY:
            raise
        raise UploadBusy("another request is writing to this session") from problem


def stands_at(path: Path, descriptor: int) -> bool:
    """True if the open file has that name now; before it was locked, somebody may have taken that away."""
    held = os.fstat(descriptor)
    try:
        with translated():
            named = os.stat(path)
    except Absent:
        return False
    return (held.st_ino, held.st_dev) == (named.st_ino, named.st_dev)


@contextmanager
def folder_shared(folder: Path) -> Iterator[int]:
    """Hold the folder together with others, while nobody holds it alone; gives its descriptor."""
    with _folder_locked(folder, fcntl.LOCK_SH) as descriptor:
        yield descriptor


@contextmanager
def folder_held_alone(folder: Path) -> Iterator[int]:
    """Hold the folder against everybody else who holds it, threads and processes; waits for them."""
    with _folder_locked(folder, fcntl.LOCK_EX) as descriptor:
        yield descriptor


@contextmanager
def _folder_locked(folder: Path, how: int) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)
