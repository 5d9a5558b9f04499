"""Errors of the operating system as errors of the interface."""

import errno
from contextlib import AbstractContextManager

from blobstore.interface import BlobStoreError, NoSpace

FULL = (errno.ENOSPC, errno.EDQUOT)


class Absent(BlobStoreError):
    """There is no such file; the caller decides what that means."""


class _Translating:
    """Has no state, so one serves all blocks: a generator for each would cost more than the check of the outcome."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, FileNotFoundError):
            raise Absent(f"the storage lacks a file: {problem.filename}") from problem
        if isinstance(problem, OSError):
            if problem.errno in FULL:
                raise NoSpace("the storage is full") from problem
            raise BlobStoreError(f"the storage failed: {problem.strerror}") from problem


_TRANSLATING = _Translating()


def translated() -> AbstractContextManager[None]:
    """Raise NoSpace for a full storage, Absent for a missing file, BlobStoreError for every other failure."""
    return _TRANSLATING
