"""Several parts of one blob in one answer: multipart/byteranges (RFC 9110 section 14.6)."""

import secrets
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

from protocol.ranges import ByteRange

# Smaller pieces go out together, because a write costs more than their bytes. Larger ones would take memory: several
# blocks wait for a client that does not read.
GATHERED_BYTES = 8 * 1024

Read = Callable[[int, int], Iterable[bytes]]


def _new_boundary() -> str:
    """A text that nobody can have put into a blob on purpose: it is chosen for this answer alone, out of 2**128."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Framing:
    """The lines around parts of a blob of `size` bytes, each of them of type `part_type`."""

    size: int
    part_type: str
    boundary: str = field(default_factory=_new_boundary)

    @property
    def content_type(self) -> str:
        """The type of the whole answer."""
        return f"multipart/byteranges; boundary={self.boundary}"

    def length(self, parts: Sequence[ByteRange]) -> int:
        """The length of the whole answer in bytes."""
        heads = sum(len(self.head(each, first=number == 0)) for number, each in enumerate(parts))
        return heads + sum(each.length for each in parts) + len(self.end)

    def head(self, part: ByteRange, *, first: bool) -> bytes:
        """The lines before the bytes of a part."""
        line_end = "" if first else "\r\n"
        return (
            f"{line_end}--{self.boundary}\r\n"
            f"Content-Type: {self.part_type}\r\n"
            f"Content-Range: {content_range(part, self.size)}\r\n\r\n"
        ).encode()

    @property
    def end(self) -> bytes:
        """The lines behind the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode()


def content_range(part: ByteRange, size: int) -> str:
    """The Content-Range of a part of a blob of `size` bytes."""
    return f"bytes {part.start}-{part.last}/{size}"


class MultipartBody:
    """The bytes of an answer of several parts, in blocks. One part is open at a time, and each is closed."""

    def __init__(self, framing: Framing, parts: Sequence[ByteRange], read: Read) -> None:
        """Open the first part, so that a missing blob is noticed here."""
        self._blocks = read(parts[0].start, parts[0].length)
        # Bare numbers, because two thousand objects would take a quarter of a megabyte while the client does not read.
        starts = array("Q", [each.start for each in parts])
        lengths = array("Q", [each.length for each in parts])
        self._pieces = self._all(framing, starts, lengths, read)

    def __iter__(self) -> "MultipartBody":
        return self

    def __next__(self) -> bytes:
        gathered: list[bytes] = []
        length = 0
        for piece in self._pieces:
            gathered.append(piece)
            length += len(piece)
            if length >= GATHERED_BYTES:
                break
        if not gathered:
            raise StopIteration
        return b"".join(gathered)

    def close(self) -> None:
        """Close the open part; may be called any number of times."""
        self._pieces.close()
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()

    def _all(
        self, framing: Framing, starts: Sequence[int], lengths: Sequence[int], read: Read
    ) -> Generator[bytes, None, None]:
        for number, part in enumerate(map(ByteRange, starts, lengths)):
            yield framing.head(part, first=number == 0)
            if number:
                self._blocks = read(part.start, part.length)
            yield from self._blocks
        yield framing.end
