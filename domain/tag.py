"""The tag: a name that moves from manifest to manifest (rule: every move is kept)."""

from dataclasses import dataclass

from domain.changes import Expand, RefIsNot, new_event
from domain.decision import Decision, Reason, Requirement
from domain.digests import Digest
from domain.event import Event, event, to_json
from domain.names import RepositoryName, TagName
from domain.preconditions import NO_MATCH, Match
from domain.streams import manifest_stream, tag_prefix, tag_stream

_DIGEST_LENGTH_MAX = 200


@event("TagMoved")
class TagMoved(Event):
    """The tag names `digest` now. The store writes the manifest that it named before as the event's `prev_ref`."""

    repository: str
    tag: str
    digest: str


@event("TagDeleted")
class TagDeleted(Event):
    """The tag names nothing any more. The manifest that it named before is the event's `prev_ref`."""

    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class TagUnknown(Reason):
    """The repository has no such tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class MoveTags:
    """Let the tags name a manifest of the repository. `match` is required of the first one."""

    repository: RepositoryName
    tags: tuple[TagName, ...]
    digest: Digest
    match: Match = NO_MATCH


def decide_moves(command: MoveTags) -> Decision:
    """Move the tags. The manifest must stand: that is decided where it is pushed, in the same append."""
    repository, digest = command.repository, command.digest
    target = manifest_stream(repository, digest)
    events = tuple(
        new_event(tag_stream(repository, tag), repository, TagMoved(repository, tag, str(digest)), ref=target)
        for tag in command.tags
    )
    return Decision(events, _required(command.match, repository, command.tags[0]) if command.tags else ())


@dataclass(frozen=True, slots=True)
class DeleteTag:
    """Let the tag name nothing; the manifest stays."""

    repository: RepositoryName
    tag: TagName
    match: Match = NO_MATCH


def decide_deletion(command: DeleteTag) -> Decision:
    """Delete the tag if it names a manifest, the required one if one is."""
    repository, tag = command.repository, command.tag
    stream = tag_stream(repository, tag)
    return Decision(
        (new_event(stream, repository, TagDeleted(repository, tag), ref=None),),
        (Requirement(RefIsNot(stream, None), TagUnknown(tag)), *_required(command.match, repository, tag)),
    )


def untagged(repository: RepositoryName, digest: Digest, most: int) -> Expand:
    """TagDeleted of the tags that name the manifest at the moment of the append, `most` of them at the most."""
    return Expand(
        target=manifest_stream(repository, digest),
        prefix=tag_prefix(repository),
        key=repository,
        type=TagDeleted.TYPE,
        schema_version=TagDeleted.SCHEMA_VERSION,
        data=to_json({"repository": repository}),
        field="tag",
        most=most,
    )


def _required(match: Match, repository: RepositoryName, tag: TagName) -> tuple[Requirement, ...]:
    def named(etag: str) -> str:
        return manifest_stream(repository, etag[:_DIGEST_LENGTH_MAX])

    return match.requirements(tag_stream(repository, tag), named)
