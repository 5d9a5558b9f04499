"""The pull path: GET and HEAD of manifests and blobs, as plain functions."""

import sys
from typing import ClassVar

from blobstore.interface import BlobName
from domain.digests import Digest, InvalidDigest, UnsupportedAlgorithm, parse_digest
from domain.link import live_link
from domain.names import InvalidName, RepositoryName, parse_tag
from domain.streams import link_stream
from projections.models import manifests
from projections.models.manifests import ManifestFound
from protocol.conditions import not_modified
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Environ, Request, empty
from query_api.context import Context
from query_api.served_blob import ServedBlob, unknown_blob


class ServedBase:
    """GET /v2/: the registry speaks the protocol."""

    _BODY = b"{}"
    _HEADERS: ClassVar = [("Content-Type", "application/json"), ("Content-Length", str(len(_BODY)))]

    def answer(self, environ: Environ) -> Answer:
        """The answer to a GET or HEAD."""
        return Answer(200, self._HEADERS, b"" if environ["REQUEST_METHOD"] == "HEAD" else self._BODY)

    answer_at_once = answer


_BASE = ServedBase()


def base(_: Context, request: Request) -> Answer:
    """GET and HEAD of /v2/."""
    return _BASE.answer(request.environ)


def manifest(context: Context, request: Request) -> Answer:
    """GET or HEAD …/manifests/<reference>: the exact bytes that were pushed, under the type that they were pushed."""
    repository = request.repository
    reference = request.route.reference
    opening = context.cache.open(repository)
    # A HEAD is most often followed by a GET, and one kept answer serves both.
    found = _find_manifest(context, repository, reference, with_body=opening is not None or request.method == "GET")
    if found is None:
        raise _unknown_manifest(reference)
    served = ServedManifest(found)
    if opening is not None:
        # Clients that ask for a tag then ask for the digest that it names. Both entries share the bytes; each is
        # charged for them.
        by_digest = f"/v2/{repository}/manifests/{found.digest}"
        for path in dict.fromkeys((by_digest, request.path)):
            context.cache.keep(path, opening, served, found.size)
    return served.answer(request.environ)


class ServedManifest:
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

    answer_at_once = answer


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
    """GET or HEAD …/blobs/<digest>, whole or in parts, if this repository links it.

    A push asks for each of its blobs in vain, so that is told by what stands beside the link's stream: one probe of an
    index, whatever read models know (rule: links are asked of the log).
    """
    repository = request.repository
    digest = _digest(request.route.reference, Code.BLOB_UNKNOWN)
    stream = link_stream(repository, digest)
    opening = context.cache.open(stream)
    link = live_link(context.store.stream_state(stream))
    if link is None:
        raise unknown_blob(str(digest))
    served = ServedBlob(context.blobs, BlobName(digest, link.generation), link.size, repository)
    if opening is not None:
        context.cache.keep(request.path, opening, served, served.kept_bytes)
    return served.answer(request.environ)


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
