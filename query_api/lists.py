"""The lists of the wire: tags, catalog, referrers, extensions."""

import json
from typing import Any

from domain.media_types import OCI_INDEX
from projections.models import catalog, referrers, tags
from projections.models.referrers import Referrer
from protocol.errors import Code, error
from protocol.messages import Answer, Headers, Request, json_answer
from protocol.paging import next_link, parse_last, parse_page
from query_api.context import Context

# Some clients stop reading an index at 4 MiB.
_REFERRERS_BYTES_MAX = 3 * 1024 * 1024


def tag_list(context: Context, request: Request) -> Answer:
    """GET …/tags/list: names in bytewise order."""
    repository = request.repository
    page = parse_page(request, context.list_page_max)
    found = tags.page(context.reader, repository, page.last, page.limit)
    if not found.known:
        raise error(Code.NAME_UNKNOWN, "no such repository", {"name": repository})
    links: Headers = []
    if found.more and found.tags:
        links = next_link(f"/v2/{repository}/tags/list", [("last", found.tags[-1]), ("n", str(page.limit))])
    return _json(request, {"name": repository, "tags": found.tags}, links)


def repository_list(context: Context, request: Request) -> Answer:
    """GET /v2/_catalog: repositories that have a manifest, in bytewise order."""
    page = parse_page(request, context.list_page_max)
    names, more = catalog.page(context.reader, page.last, page.limit)
    links: Headers = []
    if more and names:
        links = next_link("/v2/_catalog", [("last", names[-1]), ("n", str(page.limit))])
    return _json(request, {"repositories": names}, links)


def referrer_list(context: Context, request: Request) -> Answer:
    """GET …/referrers/<digest>: an index of the manifests with this subject (rule: referrers are never missing)."""
    repository = request.repository
    subject = str(request.digest)
    wanted = [each for each in request.query.get("artifactType", []) if each]
    found = referrers.page(
        context.reader,
        repository,
        subject,
        frozenset(wanted),
        parse_last(request),
        context.referrers_page_max,
        _REFERRERS_BYTES_MAX,
    )
    headers: Headers = [("OCI-Filters-Applied", "artifactType")] if wanted else []
    if found.last is not None:
        parameters = [("artifactType", each) for each in wanted]
        parameters.append(("last", found.last))
        headers += next_link(f"/v2/{repository}/referrers/{subject}", parameters)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(each) for each in found.listed]}
    return _json(request, index, headers, media_type=OCI_INDEX)


def _descriptor(listed: Referrer) -> dict[str, Any]:
    row = listed.row
    descriptor: dict[str, Any] = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        descriptor["artifactType"] = row.artifact_type
    if listed.annotations:
        descriptor["annotations"] = listed.annotations
    return descriptor


def extensions(_: Context, request: Request) -> Answer:
    """GET …/_oci/ext/discover: the extensions that this registry offers."""
    catalog_extension = {
        "name": "_catalog",
        "url": "https://github.com/opencontainers/distribution-spec/blob/main/spec.md",
        "description": "Lists the repositories that have a manifest",
        "endpoints": ["_catalog"],
    }
    if request.route.name and request.repository:
        return _json(request, {"extensions": []}, [])
    return _json(request, {"extensions": [catalog_extension]}, [])


def _json(request: Request, value: object, headers: Headers, media_type: str = "application/json") -> Answer:
    # Compact and not escaped, as manifests are, so that annotations take no more space than they did there.
    answer = json_answer(200, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), headers)
    answer.headers[0] = ("Content-Type", media_type)
    if request.method == "HEAD":
        answer.body = b""
    return answer
