"""Reads an open blob in blocks for one reader."""

import os
from collections.abc import Iterable

from blobstore.errors import translated
from blobstore.interface import BlobStoreError
from blobstore.pace import Allowance, Pace


def blocks_of(descriptor: int, start: int, length: int, allowance: Allowance) -> Iterable[bytes]:
    """The bytes as a list of one piece if that fits into a first block, else as an iterator.

    The file is closed once all is read or the iterator is closed.
    """
    if length > allowance.first_bytes:
        return FileBlocks(descriptor, start, length, Pace(allowance))
    try:
        return [read_exactly(descriptor, start, length)]
    finally:
        os.close(descriptor)


class FileBlocks:
    """Blocks of an open file, which is closed at the end or when the reader gives up."""

    def __init__(self, descriptor: int, start: int, length: int, pace: Pace) -> None:
        self._descriptor: int | None = descriptor
        self._position = start
        self._left = length
        self._pace = pace

    def __iter__(self) -> "FileBlocks":
        return self

    def __next__(self) -> bytes:
        if self._descriptor is None:
            raise StopIteration
        if self._left == 0:
            if self._pace.must_wait():
                return b""
            self.close()
            raise StopIteration
        try:
            block = os.pread(self._descriptor, self._pace.next_size(self._left), self._position)
        except OSError:
            # Entered only for an error: it would cost each block as much as the reading.
            with translated():
                raise
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
            self._pace.end()
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def read_exactly(descriptor: int, start: int, length: int) -> bytes:
    """Read all of it, although one read may give fewer bytes than were asked for."""
    made = bytearray()
    with translated():
        while len(made) < length:
            piece = os.pread(descriptor, length - len(made), start + len(made))
            if not piece:
                raise BlobStoreError("a blob's file became shorter while it was read")
            if len(piece) == length:
                return piece
            made += piece
    return bytes(made)
