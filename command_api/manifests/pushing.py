"""PUT of a manifest: its bytes are stored and its tags moved."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from command_api.context import Context
from command_api.manifests.named import look, read_config
from command_api.receiving import read_manifest
from command_api.refusals import refused
from domain.decision import Decision, Refusal
from domain.digests import DEFAULT_ALGORITHM, Digest, digest_of
from domain.facts import Facts, facts_to_json, small_annotations_json
from domain.features import SMALL_FACTS
from domain.image_config import with_config
from domain.manifest import PushManifest, decide_push, held, streams_named
from domain.manifest_parser import InvalidManifest, InvalidManifestDigest, ParsedManifest, parse_manifest
from domain.names import InvalidName, RepositoryName, TagName, parse_tag
from domain.preconditions import Match
from domain.streams import manifest_stream
from eventstore.features import READERS, Feature
from eventstore.types import Content
from protocol.conditions import etags
from protocol.errors import Code, error
from protocol.messages import Answer, Headers, Request, digest_or_error, empty

TAGS_PER_REQUEST_MAX = 100
# Larger manifests are taken one at a time by each process.
LARGE_BYTES = 512 * 1024
_ATTEMPTS_MAX = 3


def put(context: Context, request: Request) -> Answer:
    """PUT …/manifests/<reference>: by tag, or by digest with any number of `tag` parameters."""
    claimed, tags = _targets(request, request.route.reference)
    # An invalid name is refused before a body is sent or parsed for it.
    repository = request.repository
    body = read_manifest(context, request)
    with context.large_manifest if len(body) > LARGE_BYTES else nullcontext():
        parsed = _parse(body, request.content_type)
        command = _command(request, repository, claimed, tags, parsed, body)
        _carry_out(context, request, command, body)
        return empty(201, _headers(command, parsed.warning))


def _command(
    request: Request,
    repository: RepositoryName,
    claimed: Digest | None,
    tags: tuple[TagName, ...],
    parsed: ParsedManifest,
    body: bytes,
) -> PushManifest:
    digest = digest_of(claimed.algorithm if claimed else DEFAULT_ALGORITHM, body)
    if claimed is not None and claimed != digest:
        raise error(
            Code.DIGEST_INVALID,
            "the manifest has another digest",
            {"expected": str(claimed), "found": str(digest)},
        )
    return PushManifest(
        repository,
        digest,
        parsed.media_type,
        len(body),
        parsed.facts,
        tags,
        by_tag=claimed is None,
        match=Match(etags(request.header("If-Match")), etags(request.header("If-None-Match"))),
    )


def _carry_out(context: Context, request: Request, command: PushManifest, body: bytes) -> None:
    """Ask what the repository has of all that is named, decide, and append it together with the bytes."""
    own = manifest_stream(command.repository, command.digest)
    is_stored = context.known_manifests.has(own)
    named = streams_named(command.repository, command.facts)
    states = context.store.stream_states(named if is_stored else [*named, own])
    found = held(command.repository, command.facts, states)
    looked = look(context, command.facts, found)
    decision = decide_push(looked.sizes, command)
    if isinstance(decision, Refusal):
        raise refused(request, decision)

    def content() -> Content:
        facts = with_config(command.facts, read_config(context, command.facts, found, looked))
        return Content(str(command.digest), body, _kept(context, facts))

    # The log keeps the bytes of a manifest that an event names.
    _append(context, request, decision, content, is_stored=is_stored or states[own].version > 0)
    context.known_manifests.learn(own)


def _append(
    context: Context, request: Request, decision: Decision, content: Callable[[], Content], *, is_stored: bool
) -> None:
    """Append the manifest and all its tags, if everything that it names is linked at that moment.

    It is one command (rules: whole or not at all; no manifest without its blobs). Bytes that are stored already are not
    sent again. The append looks whether they are there, and if it refuses, the next attempt brings them.
    """
    for attempt in range(_ATTEMPTS_MAX):
        contents = [] if is_stored and attempt == 0 else [content()]
        refusal = context.carry_out(request, _judged(context, request, decision), contents)
        if refusal is None:
            return
        if refusal.reasons:
            raise refused(request, refusal)
    raise error(Code.UNAVAILABLE, "the manifest could not be stored, try again", headers=[("Retry-After", "1")])


def _judged(context: Context, request: Request, decision: Decision) -> Decision:
    """The decision with what its set of references requires: the set is stored, and judged as it stands now."""
    references = decision.references
    if references is None:
        return decision
    context.store.sets.put(references.digest, references.members)
    decided = references.decide(context.store.sets.judge(references.digest))
    if isinstance(decided, Refusal):
        raise refused(request, decided)
    return replace(decision, requires=(*decision.requires, decided))


def _kept(context: Context, facts: Facts) -> str:
    """The facts as they are stored: whole while older processes live that would list a referrer without its large
    annotations.
    """
    large = facts.subject is not None and small_annotations_json(facts) is None
    whole = large and bool(context.store.features.lacking(Feature(SMALL_FACTS, READERS)))
    return facts_to_json(facts, whole=whole)


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


def _parse(body: bytes, content_type: str) -> ParsedManifest:
    try:
        return parse_manifest(body, content_type)
    except InvalidManifestDigest as problem:
        raise error(Code.DIGEST_INVALID, str(problem)) from problem
    except InvalidManifest as problem:
        raise error(Code.MANIFEST_INVALID, str(problem)) from problem


def _headers(command: PushManifest, warning: str | None) -> Headers:
    headers = [
        ("Location", f"/v2/{command.repository}/manifests/{command.digest}"),
        ("Docker-Content-Digest", str(command.digest)),
    ]
    if not command.by_tag:
        headers.extend(("OCI-Tag", tag) for tag in command.tags)
    if command.facts.subject is not None:
        headers.append(("OCI-Subject", command.facts.subject))
    if warning is not None:
        headers.append(("Warning", f'299 - "{warning}"'))
    return headers
