"""Errors of the operating system as errors of the interface."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from blobstore.interface import BlobStoreError, NoSpace

FULL = (errno.ENOSPC, errno.EDQUOT)


class Absent(BlobStoreError):
    """There is no such file; the caller decides what that means."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise NoSpace for a full storage, Absent for a missing file, BlobStoreError for every other failure."""
    try:
        yield
    except FileNotFoundError as problem:
        raise Absent(f"the storage lacks a file: {problem.filename}") from problem
    except OSError as problem:
        if problem.errno in FULL:
            raise NoSpace("the storage is full") from problem
        raise BlobStoreError(f"the storage failed: {problem.strerror}") from problem
