"""PUT and DELETE of manifests and tags (protocol sections 3 and 6)."""

from contextlib import nullcontext

from command_api.context import Context, new_event
from command_api.linking import repository_created
from command_api.manifest_checks import check_stored, missing_blobs, read_config, standing_of
from command_api.naming import Naming
from command_api.receiving import read_manifest
from domain import manifest as manifests
from domain.digests import DEFAULT_ALGORITHM, Digest, digest_of
from domain.event import to_json
from domain.facts import Facts, facts_to_json, small_annotations_json
from domain.features import SMALL_FACTS
from domain.image_config import with_config
from domain.manifest import Manifest, ManifestDeleted, ManifestPushed
from domain.manifest_parser import InvalidManifest, InvalidManifestDigest, ParsedManifest, parse_manifest
from domain.names import InvalidName, RepositoryName, TagName, parse_tag
from domain.streams import PRESENT, manifest_stream, tag_prefix, tag_stream
from domain.tag import TagDeleted, TagMoved
from eventstore.features import READERS, Feature
from eventstore.types import Appended, AtMost, Condition, Content, Expand, NewEvent, RefIs, RefIsNot, Refused
from protocol.conditions import etags
from protocol.errors import Code, WireError, error
from protocol.messages import Answer, Headers, Request, digest_or_error, empty

TAGS_PER_REQUEST_MAX = 100
# Larger manifests are taken one at a time by each process.
LARGE_BYTES = 512 * 1024
# So many tags of a manifest are deleted by one append.
UNTAGGED_MAX = 250
_ATTEMPTS_MAX = 3


def put(context: Context, request: Request) -> Answer:
    """PUT …/manifests/<reference>: by tag, or by digest with any number of `tag` parameters."""
    claimed, tags = _targets(request, request.route.reference)
    body = read_manifest(context, request)
    with context.large_manifest if len(body) > LARGE_BYTES else nullcontext():
        return _put(context, request, claimed, tags, body)


def _put(context: Context, request: Request, claimed: Digest | None, tags: tuple[TagName, ...], body: bytes) -> Answer:
    repository = request.repository
    parsed = _parse(body, request.content_type)
    digest = digest_of(claimed.algorithm if claimed else DEFAULT_ALGORITHM, body)
    if claimed is not None and claimed != digest:
        raise error(
            Code.DIGEST_INVALID,
            "the manifest has another digest",
            {"expected": str(claimed), "found": str(digest)},
        )
    states = standing_of(context, repository, parsed.facts)
    check_stored(context, repository, parsed.facts, states)
    facts = with_config(parsed.facts, read_config(context, repository, parsed.facts, states))
    _append(context, request, repository, digest, body, parsed, facts, tags)
    return empty(201, _pushed_headers(repository, digest, parsed, facts, tags if claimed else ()))


def delete(context: Context, request: Request) -> Answer:
    """DELETE …/manifests/<reference>: a tag alone, or a manifest with all its tags (rule: tags are pointers)."""
    repository = request.repository
    reference = request.route.reference
    if ":" in reference:
        return _delete_manifest(context, request, repository, digest_or_error(reference))
    return _delete_tag(context, request, repository, _tag_or_unknown(reference))


def _targets(request: Request, reference: str) -> tuple[Digest | None, tuple[TagName, ...]]:
    """The digest that the client claims, if any, and the tags to move."""
    extra = request.query.get("tag", [])
    if ":" not in reference:
        if extra:
            raise error(Code.TAG_INVALID, "the tag parameter goes with a digest, not with a tag")
        return None, (_tag_or_invalid(reference),)
    digest = digest_or_error(reference)
    if len(extra) > TAGS_PER_REQUEST_MAX:
        raise error(Code.TAG_INVALID, f"at most {TAGS_PER_REQUEST_MAX} tags a request", status=414)
    return digest, tuple(dict.fromkeys(_tag_or_invalid(each) for each in extra))


def _tag_or_invalid(text: str) -> TagName:
    try:
        return parse_tag(text)
    except InvalidName as problem:
        raise error(Code.TAG_INVALID, str(problem), {"tag": text[:200]}) from problem


def _tag_or_unknown(text: str) -> TagName:
    try:
        return parse_tag(text)
    except InvalidName as problem:
        raise _unknown_manifest(text) from problem


def _parse(body: bytes, content_type: str) -> ParsedManifest:
    try:
        return parse_manifest(body, content_type)
    except InvalidManifestDigest as problem:
        raise error(Code.DIGEST_INVALID, str(problem)) from problem
    except InvalidManifest as problem:
        raise error(Code.MANIFEST_INVALID, str(problem)) from problem


def _append(
    context: Context,
    request: Request,
    repository: RepositoryName,
    digest: Digest,
    body: bytes,
    parsed: ParsedManifest,
    facts: Facts,
    tags: tuple[TagName, ...],
) -> None:
    """Append the manifest and all its tags, if everything that it names stands at that moment.

    It is one command (rules: whole or not at all; no manifest without its blobs).
    """
    naming = Naming(repository, facts)
    preconditions = _preconditions(request, repository, digest, tags)
    pushed = _pushed_events(repository, digest, len(body), parsed.media_type, facts, naming, tags)
    content = Content(str(digest), body, facts_to_json(facts, whole=_must_be_whole(context, facts)))
    for _ in range(_ATTEMPTS_MAX):
        context.store.put_content(content)
        needs = naming.conditions(context.store)
        outcome = context.append(request, pushed, [*needs, *preconditions])
        if isinstance(outcome, Appended):
            return
        if any(each >= len(needs) for each in outcome.failed_conditions):
            raise _precondition_failed(request)
        if missing := naming.missing(outcome.failed_conditions):
            raise missing_blobs(missing)
    raise error(Code.UNAVAILABLE, "the manifest could not be stored, try again", headers=[("Retry-After", "1")])


def _must_be_whole(context: Context, facts: Facts) -> bool:
    """True while older processes live that would list a referrer without its large annotations."""
    if facts.subject is None or small_annotations_json(facts) is not None:
        return False
    return bool(context.store.features.lacking(Feature(SMALL_FACTS, READERS)))


def _pushed_events(
    repository: RepositoryName,
    digest: Digest,
    size: int,
    media_type: str,
    facts: Facts,
    naming: Naming,
    tags: tuple[TagName, ...],
) -> list[NewEvent]:
    stream = manifest_stream(repository, digest)
    events = [
        repository_created(repository),
        new_event(
            stream,
            repository,
            ManifestPushed(repository, str(digest), media_type, size, facts.subject),
            ref=PRESENT,
            state=manifests.to_state(Manifest(size)),
            refers_to=naming.refers_to,
            content=str(digest),
        ),
    ]
    events.extend(
        new_event(tag_stream(repository, tag), repository, TagMoved(repository, tag, str(digest)), ref=stream)
        for tag in tags
    )
    return events


def _preconditions(
    request: Request, repository: RepositoryName, digest: Digest, tags: tuple[TagName, ...]
) -> list[Condition]:
    """If-Match and If-None-Match of a PUT, judged under the append's lock (rule: conditional pushes).

    They speak of what the reference in the path names: of the tag, or of the manifest with this digest.
    """
    by_tag = ":" not in request.route.reference
    stream = tag_stream(repository, tags[0]) if by_tag else manifest_stream(repository, digest)
    conditions: list[Condition] = []
    match = etags(request.header("If-Match"))
    if "*" in match:
        conditions.append(RefIsNot(stream, None))
    elif match:
        conditions.append(RefIs(tuple((stream, _ref(repository, each, by_tag, digest)) for each in sorted(match))))
    none_match = etags(request.header("If-None-Match"))
    if "*" in none_match:
        conditions.append(RefIs(((stream, None),)))
    else:
        conditions.extend(RefIsNot(stream, _ref(repository, each, by_tag, digest)) for each in sorted(none_match))
    return conditions


def _ref(repository: RepositoryName, etag: str, by_tag: bool, digest: Digest) -> str:
    """The ref that the stream has while its entity tag is `etag`."""
    if by_tag:
        return manifest_stream(repository, etag[:200])
    return PRESENT if etag == str(digest) else "another digest"


def _precondition_failed(request: Request) -> WireError:
    given = {name: value for name in ("If-Match", "If-None-Match") if (value := request.header(name)) is not None}
    return error(Code.DENIED, "the precondition does not hold", {"condition": given}, status=412)


def _pushed_headers(
    repository: RepositoryName, digest: Digest, parsed: ParsedManifest, facts: Facts, tags: tuple[TagName, ...]
) -> Headers:
    headers = [
        ("Location", f"/v2/{repository}/manifests/{digest}"),
        ("Docker-Content-Digest", str(digest)),
    ]
    headers.extend(("OCI-Tag", tag) for tag in tags)
    if facts.subject is not None:
        headers.append(("OCI-Subject", facts.subject))
    if parsed.warning is not None:
        headers.append(("Warning", f'299 - "{parsed.warning}"'))
    return headers


def _delete_tag(context: Context, request: Request, repository: RepositoryName, tag: TagName) -> Answer:
    stream = tag_stream(repository, tag)
    conditions: list[Condition] = [RefIsNot(stream, None)]
    match = etags(request.header("If-Match"))
    if match and "*" not in match:
        conditions.append(RefIs(tuple((stream, manifest_stream(repository, each[:200])) for each in sorted(match))))
    outcome = context.append(
        request, [new_event(stream, repository, TagDeleted(repository, tag), ref=None)], conditions
    )
    if isinstance(outcome, Refused):
        if 0 in outcome.failed_conditions:
            raise _unknown_manifest(tag)
        raise _precondition_failed(request)
    return empty(202)


def _delete_manifest(context: Context, request: Request, repository: RepositoryName, digest: Digest) -> Answer:
    stream = manifest_stream(repository, digest)
    deleted = new_event(
        stream,
        repository,
        ManifestDeleted(repository, str(digest)),
        ref=None,
        refers_to=(),
        content=str(digest),
    )
    untagged = Expand(
        target=stream,
        prefix=tag_prefix(repository),
        key=repository,
        type=TagDeleted.TYPE,
        schema_version=TagDeleted.SCHEMA_VERSION,
        data=to_json({"repository": repository}),
        field="tag",
        most=UNTAGGED_MAX,
    )
    present = RefIs(((stream, PRESENT),))
    few = AtMost(stream, untagged.prefix, UNTAGGED_MAX)
    outcome = context.append(request, [deleted, untagged], [present, few])
    # Others would wait for the deletion of very many tags, so all but the last of them go first, some at a time.
    while isinstance(outcome, Refused) and outcome.failed_conditions == (1,):
        context.append(request, [untagged], [present])
        outcome = context.append(request, [deleted, untagged], [present, few])
    if isinstance(outcome, Refused):
        raise _unknown_manifest(str(digest))
    return empty(202)


def _unknown_manifest(reference: str) -> WireError:
    return error(Code.MANIFEST_UNKNOWN, "no such manifest in this repository", {"reference": reference[:200]})
