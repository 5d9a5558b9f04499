"""/api/v1: questions beyond the protocol, for programs and pages."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request
from marshmallow import Schema, ValidationError

from domain.digests import InvalidDigest, parse_digest
from domain.names import InvalidName, parse_repository_name
from projections.models import audit, blob_references
from protocol.errors import Code, error
from query_api import schemas
from query_api.context import Context


def blueprint(context: Context) -> Blueprint:
    """The routes of /api/v1 that read."""
    made = Blueprint("query", __name__, url_prefix="/api/v1")

    @made.get("/history")
    def changes() -> Response:
        return _history(context, None)

    @made.get("/repositories/<path:name>/history")
    def history(name: str) -> Response:
        return _history(context, name)

    @made.get("/blobs/<digest>/references")
    def references(digest: str) -> Response:
        return _references(context, digest)

    return made


def _history(context: Context, name: str | None) -> Response:
    try:
        repository = None if name is None else parse_repository_name(name)
    except InvalidName as problem:
        raise error(Code.NAME_INVALID, str(problem)) from problem
    asked = _parameters(schemas.ChangesParameters() if repository is None else schemas.HistoryParameters())
    limit, before, what = asked.pop("n"), asked.pop("before"), tuple(asked.pop("what") or ())
    wanted = audit.Wanted(repository=repository, what=what, **asked)
    page = audit.history(context.reader, wanted, before=before, limit=limit)
    if repository is not None and not page.rows and before is None and wanted == audit.Wanted(repository):
        raise error(Code.NAME_UNKNOWN, "no such repository", {"name": repository})
    following = None
    if page.before is not None:
        query = urlencode({"n": limit, **request.args.to_dict(), "before": page.before})
        following = f"{request.path}?{query}"
    entries: dict[str, Any] = {"entries": page.rows, "next": following}
    if repository is None:
        return jsonify(schemas.Changes().dump(entries))
    return jsonify(schemas.History().dump({"repository": repository, "tag": wanted.tag, **entries}))


def _references(context: Context, text: str) -> Response:
    try:
        digest = str(parse_digest(text))
    except InvalidDigest as problem:
        raise error(Code.DIGEST_INVALID, str(problem)) from problem
    asked = _parameters(schemas.ReferencesParameters())
    found = blob_references.references(context.reader, digest, _after(asked["after"]), asked["n"])
    if not found.repositories and not found.manifests and asked["after"] is None:
        raise error(Code.BLOB_UNKNOWN, "no repository has this blob", {"digest": digest})
    following = None
    manifests = [
        {"repository": repository, "digest": manifest, "role": role} for repository, manifest, role in found.manifests
    ]
    if found.more and manifests:
        last = manifests[-1]
        query = urlencode({"n": asked["n"], "after": f"{last['repository']}@{last['digest']}"})
        following = f"/api/v1/blobs/{digest}/references?{query}"
    answer = {
        "digest": digest,
        "count": found.count,
        "count_exact": found.count_exact,
        "repositories": found.repositories,
        "more_repositories": found.more_repositories,
        "manifests": manifests,
        "next": following,
    }
    return jsonify(schemas.BlobReferences().dump(answer))


def _after(text: str | None) -> tuple[str, str] | None:
    """The last entry of the page before, as `repository@digest`."""
    if text is None:
        return None
    repository, _, digest = text.partition("@")
    if "\x00" in text:
        raise error(Code.UNSUPPORTED, "after must be <repository>@<digest>", status=400)
    return repository, digest


def _parameters(schema: Schema) -> dict[str, Any]:
    """The query parameters, checked by the schema. Raises 400 that names every wrong one."""
    try:
        loaded: dict[str, Any] = schema.load(request.args.to_dict())
    except ValidationError as problem:
        raise error(Code.UNSUPPORTED, "wrong parameters", problem.messages, status=400) from problem
    return loaded
