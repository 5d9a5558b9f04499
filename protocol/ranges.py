"""Byte ranges: the Range header of downloads (RFC 9110 section 14) and the Content-Range of chunks."""

import re
from dataclasses import dataclass

_UNIT = re.compile(r"[ \t]*bytes[ \t]*=", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")
_CHUNK = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
# The most ranges that one request may ask for. podman asks for up to 1,025. Each part costs some 150 bytes and a read.
RANGES_MAX = 2048
_DIGITS_MAX = 19
_BEYOND_ANY_BLOB = 10**_DIGITS_MAX


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


def parse_ranges(header: str | None, size: int) -> tuple[ByteRange, ...] | None:
    """The parts that the header asks of a blob of `size` bytes: in ascending order, with bytes between any two.

    Ranges that overlap or touch become one. Those that name no byte of the blob (behind its end, a suffix of zero
    bytes, an end before its start) count for nothing. None means the whole blob: no header, another unit, broken
    grammar, or more than RANGES_MAX ranges. Raises Unsatisfiable if no range names a byte.
    """
    unit = _UNIT.match(header or "")
    if header is None or unit is None:
        return None
    # The grammar of lists (RFC 9110 section 5.6.1) allows empty elements.
    specs = [each for each in (each.strip(" \t") for each in header[unit.end() :].split(",")) if each]
    if not 0 < len(specs) <= RANGES_MAX:
        return None
    found: list[ByteRange] = []
    for spec in specs:
        match = _RANGE.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return None
        one = _within(match[1], match[2], size)
        if one is not None:
            found.append(one)
    if not found:
        raise Unsatisfiable(header[:80])
    return tuple(_merged(found))


def _within(first: str, last: str, size: int) -> ByteRange | None:
    """One range of the header, cut at the end of the blob; None if it names none of its bytes."""
    if not first:
        length = min(_number(last), size)
        return ByteRange(size - length, length) if length else None
    start = _number(first)
    end = min(_number(last), size - 1) if last else size - 1
    return ByteRange(start, end - start + 1) if start <= end else None


def _number(digits: str) -> int:
    """The number, or one beyond the end of any blob if there are too many digits."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS_MAX else _BEYOND_ANY_BLOB


def _merged(ranges: list[ByteRange]) -> list[ByteRange]:
    made: list[ByteRange] = []
    for each in sorted(ranges, key=lambda each: each.start):
        if made and each.start <= made[-1].last + 1:
            start = made[-1].start
            made[-1] = ByteRange(start, max(made[-1].last, each.last) - start + 1)
        else:
            made.append(each)
    return made


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
    """The Range header that tells a client how far its upload stands (rule: empty range)."""
    return f"0-{max(offset - 1, 0)}"
