"""A blob as a repository serves it, whole or in parts: from its file, or from memory if it is small.

A file can vanish without an event: a check moves a damaged one away, or somebody deletes it. A HEAD that says 200 then
keeps the push that would heal it from sending the bytes. So a file that was seen is relied on for a moment only
(rule: look at the file). The bytes of a small one were compared with its digest before they were kept
(rule: kept bytes have their digest); damage of the file itself is for the check to find.
"""

import logging
import time
from collections.abc import Callable, Iterable

from blobstore.interface import SEEN_FOR_S, BlobMissing, BlobName, BlobStore
from blobstore.small import SMALL_BYTES_MAX, read_right
from protocol.conditions import not_modified, range_applies
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Environ, Headers, empty
from protocol.multipart import Framing, MultipartBody, content_range
from protocol.ranges import ByteRange, Unsatisfiable, parse_ranges

_log = logging.getLogger(__name__)
# A blob is data and never a page: a browser must not run it, whatever bytes it has.
_TYPE = "application/octet-stream"
_HEADERS = (
    ("Accept-Ranges", "bytes"),
    ("Cache-Control", "private, max-age=31536000, immutable"),
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "sandbox"),
)


class ServedBlob:
    """A blob that a repository links; any number of threads may ask it at a time."""

    __slots__ = ("_blobs", "_clock", "_content", "_digest", "_name", "_repository", "_seen_until", "_size")

    def __init__(
        self,
        blobs: BlobStore,
        name: BlobName,
        size: int,
        repository: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blobs = blobs
        self._name = name
        self._digest = str(name.digest)
        self._size = size
        self._repository = repository
        self._clock = clock
        self._seen_until = 0.0
        self._content: bytes | None = None

    @property
    def kept_bytes(self) -> int:
        """The number of bytes that this holds in memory once it was asked for."""
        return self._size if self._size <= SMALL_BYTES_MAX else 0

    def answer(self, environ: Environ) -> Answer:
        """The answer to a GET or HEAD. Raises WireError."""
        return self._answer(environ, self._looked_at())

    def answer_at_once(self, environ: Environ) -> Answer | None:
        """The same answer if the file was seen just now and no byte has to come from it."""
        content = self._content
        if self._clock() >= self._seen_until or "HTTP_RANGE" in environ:
            return None
        if content is None and environ["REQUEST_METHOD"] != "HEAD":
            return None
        return self._answer(environ, content)

    def _answer(self, environ: Environ, content: bytes | None) -> Answer:
        headers = [("Docker-Content-Digest", self._digest), ("ETag", f'"{self._digest}"'), *_HEADERS]
        if not_modified(environ.get("HTTP_IF_NONE_MATCH"), self._digest):
            return empty(304, headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            # Only a GET has ranges (RFC 9110 section 14.2).
            return Answer(200, [*headers, *_entity(_TYPE, self._size)])
        parts = self._parts(environ)
        try:
            return self._whole(headers, content) if parts is None else self._partial(headers, parts, content)
        except BlobMissing as problem:
            raise self._gone("is missing or became shorter") from problem

    def _looked_at(self) -> bytes | None:
        """All bytes of a small blob, None of a larger one; the file is looked at unless it was just now."""
        # Taken before the look, so that nothing is relied on for longer.
        now = self._clock()
        content = self._content
        if now < self._seen_until:
            return content
        if self._blobs.stat(self._name) != self._size:
            self._content = None
            raise self._gone("is missing or has another size")
        if content is None and self._size <= SMALL_BYTES_MAX:
            content = self._content = self._read_right()
        self._seen_until = now + SEEN_FOR_S
        return content

    def _read_right(self) -> bytes:
        """The bytes, which have the digest. Raises 404, so that the next push brings them anew."""
        content = read_right(self._blobs, self._name)
        if content is None:
            raise self._gone("does not hold the bytes of its digest")
        return content

    def _whole(self, headers: Headers, content: bytes | None) -> Answer:
        body = self._read(0, self._size) if content is None else content
        return Answer(200, [*headers, *_entity(_TYPE, self._size)], body)

    def _partial(self, headers: Headers, parts: tuple[ByteRange, ...], content: bytes | None) -> Answer:
        if len(parts) > 1:
            framing = Framing(self._size, _TYPE)
            read = self._read_in_small_blocks if content is None else _reader_of(content)
            body = MultipartBody(framing, parts, read)
            return Answer(206, [*headers, *_entity(framing.content_type, framing.length(parts))], body)
        (part,) = parts
        headers = [*headers, ("Content-Range", content_range(part, self._size)), *_entity(_TYPE, part.length)]
        read = self._read if content is None else _reader_of(content)
        return Answer(206, headers, read(part.start, part.length))

    def _read(self, start: int, length: int) -> Iterable[bytes]:
        return self._blobs.read(self._name, start, length)

    def _read_in_small_blocks(self, start: int, length: int) -> Iterable[bytes]:
        return self._blobs.read(self._name, start, length, large_blocks=False)

    def _parts(self, environ: Environ) -> tuple[ByteRange, ...] | None:
        """The parts that are asked for, None for the whole. Raises 416."""
        asked = environ.get("HTTP_RANGE")
        if asked is None or not range_applies(environ.get("HTTP_IF_RANGE"), self._digest):
            return None
        try:
            return parse_ranges(asked, self._size)
        except Unsatisfiable as problem:
            raise error(
                Code.RANGE_INVALID,
                "the range is not within the blob",
                {"size": self._size},
                headers=[("Content-Range", f"bytes */{self._size}")],
            ) from problem

    def _gone(self, why: str) -> WireError:
        _log.error("the file of blob %s %s, and %s links it", self._digest, why, self._repository)
        return unknown_blob(self._digest)


def unknown_blob(digest: str) -> WireError:
    """404 for a blob that a repository does not link, or whose bytes are not there."""
    return error(Code.BLOB_UNKNOWN, "no such blob in this repository", {"digest": digest})


def _reader_of(content: bytes) -> Callable[[int, int], list[bytes]]:
    return lambda start, length: [content[start : start + length]]


def _entity(content_type: str, length: int) -> Headers:
    return [("Content-Type", content_type), ("Content-Length", str(length))]
