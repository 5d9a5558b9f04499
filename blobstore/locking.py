"""One writer a staging file: a lock that threads and processes obey and that ends with its holder (S26)."""

import errno
import fcntl
import os
import struct

from blobstore.interface import UploadBusy

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("hhqqi4x")
# Known to the module on Linux only.
_SET_OFD_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)


def lock_exclusively(descriptor: int) -> None:
    """Lock the open file against every other opening of it, without waiting; raises UploadBusy.

    A lock of the open file description, so it holds between threads too, and the kernel drops it with the last
    descriptor, however the process ends. Where the system has none, flock() does the same on local disks.
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
