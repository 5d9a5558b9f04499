"""Errors of the operating system as errors of the interface."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from blobstore.interface import BlobStoreError, NoSpace


@contextmanager
def translated() -> Iterator[None]:
    """Raise NoSpace for a full storage, BlobStoreError for every other failure of the operating system."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the storage is full") from problem
        raise BlobStoreError(f"the storage failed: {problem.strerror}") from problem
