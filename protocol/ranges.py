"""Byte ranges: the Range header of downloads (RFC 9110 section 14) and the Content-Range of chunks (U, G10)."""

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_CHUNK = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


class Unsatisfiable(ValueError):
    """The range names no byte of the blob: answer 416."""


class InvalidChunkRange(ValueError):
    """The Content-Range of a chunk is not `start-end` with end >= start."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start` on."""

    start: int
    length: int

    @property
    def last(self) -> int:
        """The position of the last byte."""
        return self.start + self.length - 1


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that the header asks of a blob of `size` bytes.

    None means the whole blob: no header, another unit, or several ranges (which a server may ignore). Raises
    Unsatisfiable for a range outside of the blob, a suffix of zero bytes, and an end before its start.
    """
    if header is None:
        return None
    match = _ONE_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if max(len(first), len(last)) > 30:
        raise Unsatisfiable(header[:80])
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise Unsatisfiable(header)
        return ByteRange(size - length, length)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if start >= size or end < start:
        raise Unsatisfiable(header)
    return ByteRange(start, end - start + 1)


def parse_chunk_range(header: str) -> ByteRange:
    """The `start-end` of a chunk's Content-Range (both inclusive); raises InvalidChunkRange."""
    match = _CHUNK.fullmatch(header.strip())
    if match is None:
        raise InvalidChunkRange(f"Content-Range must be <start>-<end>, not {header[:80]!r}")
    start, end = int(match[1]), int(match[2])
    if end < start:
        raise InvalidChunkRange("Content-Range ends before it starts")
    return ByteRange(start, end - start + 1)


def uploaded_range(offset: int) -> str:
    """The Range header that tells a client how far its upload stands (U2, D4: `0-0` for nothing yet)."""
    return f"0-{max(offset - 1, 0)}"
