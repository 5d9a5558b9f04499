"""The pull path: GET and HEAD of manifests and blobs, as plain functions (protocol E6, E9)."""

import logging

from blobstore.interface import BlobMissing, BlobName
from domain.digests import Digest, InvalidDigest, UnsupportedAlgorithm, parse_digest
from domain.names import InvalidName, RepositoryName, parse_tag
from projections import links, manifests
from projections.manifests import ManifestFound
from protocol.conditions import not_modified
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Headers, Request, empty
from protocol.ranges import ByteRange, Unsatisfiable, parse_range
from query_api.context import Context

_log = logging.getLogger(__name__)
_BLOB_CACHE = "private, max-age=31536000, immutable"


def base(_: Context, request: Request) -> Answer:
    """GET /v2/: the registry speaks the protocol (E1)."""
    body = b"{}"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return Answer(200, headers, b"" if request.method == "HEAD" else body)


def manifest(context: Context, request: Request) -> Answer:
    """GET or HEAD …/manifests/<reference>: the exact bytes that were pushed, under the type that they were pushed."""
    repository = request.repository
    reference = request.route.reference
    with_body = request.method == "GET"
    found = _find_manifest(context, repository, reference, with_body=with_body)
    if found is None:
        raise _unknown_manifest(reference)
    etag = ("ETag", f'"{found.digest}"')
    digest = ("Docker-Content-Digest", found.digest)
    if not_modified(request.header("If-None-Match"), found.digest):
        return empty(304, [etag, digest])
    headers = [("Content-Type", found.media_type), ("Content-Length", str(found.size)), digest, etag]
    return Answer(200, headers, found.body if with_body and found.body is not None else b"")


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
    """GET or HEAD …/blobs/<digest>, whole or one range, if this repository links it (I8)."""
    repository = request.repository
    digest = _digest(request.route.reference, Code.BLOB_UNKNOWN)
    link = links.find(context.reader, repository, str(digest))
    if link is None:
        raise _unknown_blob(digest)
    name = BlobName(digest, link.generation)
    if context.blobs.stat(name) != link.size:
        _log.error("the file of blob %s is missing or has another size, and %s links it", digest, repository)
        raise _unknown_blob(digest)
    if not_modified(request.header("If-None-Match"), str(digest)):
        return empty(304, _blob_headers(digest))
    return _send(context, request, name, link.size)


def _send(context: Context, request: Request, name: BlobName, size: int) -> Answer:
    headers = _blob_headers(name.digest)
    try:
        part = parse_range(request.header("Range"), size)
    except Unsatisfiable as problem:
        raise error(
            Code.RANGE_INVALID,
            "the range is not within the blob",
            {"size": size},
            headers=[("Content-Range", f"bytes */{size}")],
        ) from problem
    status = 200 if part is None else 206
    if part is None:
        part = ByteRange(0, size)
    else:
        headers.append(("Content-Range", f"bytes {part.start}-{part.last}/{size}"))
    headers.append(("Content-Length", str(part.length)))
    if request.method == "HEAD" or part.length == 0:
        return Answer(status, headers)
    try:
        return Answer(status, headers, context.blobs.read(name, part.start, part.length))
    except BlobMissing as problem:
        raise _unknown_blob(name.digest) from problem


def _blob_headers(digest: Digest) -> Headers:
    """A blob is data, never a page: whatever it holds, a browser must not run it."""
    return [
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", _BLOB_CACHE),
        ("Content-Disposition", "attachment"),
        ("Content-Security-Policy", "sandbox"),
    ]


def _digest(text: str, code_of_unknown: Code) -> Digest:
    """The digest of a path: 400 where it is malformed, 404 where nothing can have its algorithm (G4)."""
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
