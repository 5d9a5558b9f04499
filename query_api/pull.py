"""The pull path: GET and HEAD of manifests and blobs, as plain functions."""

import logging
import sys
from collections.abc import Iterable

from blobstore.interface import BlobMissing, BlobName, BlobStore
from domain.digests import Digest, InvalidDigest, UnsupportedAlgorithm, parse_digest
from domain.names import InvalidName, RepositoryName, parse_tag
from projections.models import links, manifests
from projections.models.manifests import ManifestFound
from protocol.conditions import not_modified, range_applies
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Environ, Headers, Request, empty
from protocol.multipart import Framing, MultipartBody, content_range
from protocol.ranges import ByteRange, Unsatisfiable, parse_ranges
from query_api.context import Context

_log = logging.getLogger(__name__)
# A blob is data, never a page: whatever it holds, a browser must not run it.
_BLOB_TYPE = "application/octet-stream"
_BLOB_HEADERS = (
    ("Accept-Ranges", "bytes"),
    ("Cache-Control", "private, max-age=31536000, immutable"),
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "sandbox"),
)


def base(_: Context, request: Request) -> Answer:
    """GET /v2/: the registry speaks the protocol."""
    body = b"{}"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return Answer(200, headers, b"" if request.method == "HEAD" else body)


def manifest(context: Context, request: Request) -> Answer:
    """GET or HEAD …/manifests/<reference>: the exact bytes that were pushed, under the type that they were pushed."""
    repository = request.repository
    reference = request.route.reference
    opening = context.cache.open(repository)
    # A HEAD is most often followed by a GET: what is kept serves both.
    found = _find_manifest(context, repository, reference, with_body=opening is not None or request.method == "GET")
    if found is None:
        raise _unknown_manifest(reference)
    standing = StandingManifest(found)
    if opening is not None:
        # Clients that ask what a tag names then ask for that. Both entries share the bytes, each is charged for them.
        by_digest = f"/v2/{repository}/manifests/{found.digest}"
        for path in dict.fromkeys((by_digest, request.path)):
            context.cache.keep(path, opening, standing, found.size)
    return standing.answer(request.environ)


class StandingManifest:
    """A manifest that a repository serves. There may be very many, so headers are made when they are asked for."""

    __slots__ = ("_body", "_digest", "_media_type", "_size")

    def __init__(self, found: ManifestFound) -> None:
        self._digest = found.digest
        # Of few kinds: kept once.
        self._media_type = sys.intern(found.media_type)
        self._size = str(found.size)
        self._body = found.body or b""

    def answer(self, environ: Environ) -> Answer:
        """The answer to a GET or HEAD."""
        names = [("Docker-Content-Digest", self._digest), ("ETag", f'"{self._digest}"')]
        if not_modified(environ.get("HTTP_IF_NONE_MATCH"), self._digest):
            return empty(304, names)
        headers = [("Content-Type", self._media_type), ("Content-Length", self._size), *names]
        return Answer(200, headers, self._body if environ["REQUEST_METHOD"] == "GET" else b"")


def _find_manifest(
    context: Context, repository: RepositoryName, reference: str, *, with_body: bool
) -> ManifestFound | None:
    if ":" in reference:
        digest = _digest(reference, Code.MANIFEST_UNKNOWN)
        return manifests.by_digest(context.reader, repository, str(digest), with_body=with_body)
    try:
        tag = parse_tag(reference)
    except InvalidName as problem:
        raise _unknown_manifest(reference) from problem
    return manifests.by_tag(context.reader, repository, tag, with_body=with_body)


def blob(context: Context, request: Request) -> Answer:
    """GET or HEAD …/blobs/<digest>, whole or in parts, if this repository links it."""
    repository = request.repository
    digest = _digest(request.route.reference, Code.BLOB_UNKNOWN)
    opening = context.cache.open(repository)
    link = links.find(context.reader, repository, str(digest))
    if link is None:
        raise _unknown_blob(digest)
    standing = StandingBlob(context.blobs, BlobName(digest, link.generation), link.size, repository)
    if opening is not None:
        context.cache.keep(request.path, opening, standing, 0)
    return standing.answer(request.environ)


class StandingBlob:
    """A blob that a repository links. Each answer looks at its file, which may be gone (rule: look at the file)."""

    __slots__ = ("_blobs", "_name", "_repository", "_size")

    def __init__(self, blobs: BlobStore, name: BlobName, size: int, repository: str) -> None:
        self._blobs = blobs
        self._name = name
        self._size = size
        self._repository = repository

    def answer(self, environ: Environ) -> Answer:
        """The answer to a GET or HEAD. Raises WireError."""
        if self._blobs.stat(self._name) != self._size:
            _log.error(
                "the file of blob %s is missing or has another size, and %s links it",
                self._name.digest,
                self._repository,
            )
            raise _unknown_blob(self._name.digest)
        digest = str(self._name.digest)
        headers = [("Docker-Content-Digest", digest), ("ETag", f'"{digest}"'), *_BLOB_HEADERS]
        if not_modified(environ.get("HTTP_IF_NONE_MATCH"), digest):
            return empty(304, headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            # Only a GET has ranges (RFC 9110 section 14.2).
            return Answer(200, [*headers, *_entity(_BLOB_TYPE, self._size)])
        parts = self._parts(environ)
        try:
            return self._whole(headers) if parts is None else self._partial(headers, parts)
        except BlobMissing as problem:
            raise _unknown_blob(self._name.digest) from problem

    def _whole(self, headers: Headers) -> Answer:
        body = self._read(0, self._size) if self._size else b""
        return Answer(200, [*headers, *_entity(_BLOB_TYPE, self._size)], body)

    def _partial(self, headers: Headers, parts: tuple[ByteRange, ...]) -> Answer:
        if len(parts) > 1:
            framing = Framing(self._size, _BLOB_TYPE)
            body = MultipartBody(framing, parts, self._read_in_small_blocks)
            return Answer(206, [*headers, *_entity(framing.content_type, framing.length(parts))], body)
        (part,) = parts
        headers = [*headers, ("Content-Range", content_range(part, self._size)), *_entity(_BLOB_TYPE, part.length)]
        return Answer(206, headers, self._read(part.start, part.length))

    def _read(self, start: int, length: int) -> Iterable[bytes]:
        return self._blobs.read(self._name, start, length)

    def _read_in_small_blocks(self, start: int, length: int) -> Iterable[bytes]:
        return self._blobs.read(self._name, start, length, large_blocks=False)

    def _parts(self, environ: Environ) -> tuple[ByteRange, ...] | None:
        """The parts that are asked for, None for the whole. Raises 416."""
        if not range_applies(environ.get("HTTP_IF_RANGE"), str(self._name.digest)):
            return None
        try:
            return parse_ranges(environ.get("HTTP_RANGE"), self._size)
        except Unsatisfiable as problem:
            raise error(
                Code.RANGE_INVALID,
                "the range is not within the blob",
                {"size": self._size},
                headers=[("Content-Range", f"bytes */{self._size}")],
            ) from problem


def _entity(content_type: str, length: int) -> Headers:
    return [("Content-Type", content_type), ("Content-Length", str(length))]


def _digest(text: str, code_of_unknown: Code) -> Digest:
    """The digest of a path. Raises 400 where it is malformed, 404 for other algorithms (rule: unknown algorithms)."""
    try:
        return parse_digest(text)
    except UnsupportedAlgorithm as problem:
        raise error(code_of_unknown, str(problem), {"digest": text[:200]}) from problem
    except InvalidDigest as problem:
        raise error(Code.DIGEST_INVALID, str(problem), {"digest": text[:200]}) from problem


def _unknown_manifest(reference: str) -> WireError:
    return error(Code.MANIFEST_UNKNOWN, "no such manifest in this repository", {"reference": reference[:200]})


def _unknown_blob(digest: Digest) -> WireError:
    return error(Code.BLOB_UNKNOWN, "no such blob in this repository", {"digest": str(digest)})
