"""DELETE of a tag alone, or of a manifest with all its tags (rule: tags are pointers)."""

from command_api.context import Context
from command_api.refusals import refused, unknown_manifest
from domain import manifest as manifests
from domain import tag as tags
from domain.decision import Refusal
from domain.manifest import DeleteManifest, TooManyTags
from domain.names import InvalidName, TagName, parse_tag
from domain.preconditions import Match
from domain.tag import DeleteTag
from protocol.conditions import etags
from protocol.messages import Answer, Request, digest_or_error, empty


def delete(context: Context, request: Request) -> Answer:
    """DELETE …/manifests/<reference>: 202, or 404 MANIFEST_UNKNOWN, or 412 where If-Match of a tag does not hold."""
    repository = request.repository
    reference = request.route.reference
    if ":" in reference:
        refusal = _delete_manifest(context, request, DeleteManifest(repository, digest_or_error(reference)))
    else:
        command = DeleteTag(repository, _tag(reference), Match(etags(request.header("If-Match"))))
        refusal = context.carry_out(request, tags.decide_deletion(command))
    if refusal is not None:
        raise refused(request, refusal)
    return empty(202)


def _delete_manifest(context: Context, request: Request, command: DeleteManifest) -> Refusal | None:
    decision = manifests.decide_deletion(command)
    refusal = context.carry_out(request, decision)
    # Others would wait for the deletion of very many tags, so all but the last of them go first, some at a time.
    while refusal == Refusal((TooManyTags(),)):
        context.carry_out(request, manifests.decide_untagging(command))
        refusal = context.carry_out(request, decision)
    return refusal


def _tag(text: str) -> TagName:
    try:
        return parse_tag(text)
    except InvalidName as problem:
        raise unknown_manifest(text) from problem
