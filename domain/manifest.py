"""The manifest: pushed into a repository, deleted from it; its bytes and facts are content of the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.changes import AtMost, Expand, NewEvent, RefIs, StreamState, new_event
from domain.decision import Decision, Reason, Refusal, Requirement
from domain.digests import Digest
from domain.event import Event, event
from domain.facts import Facts, Reference
from domain.link import Link, live_link
from domain.names import RepositoryName, TagName
from domain.preconditions import NO_MATCH, Match
from domain.references import Named, NamedMissing, may_be_manifest, named_by
from domain.repository import created
from domain.streams import PRESENT, link_stream, manifest_stream, tag_prefix
from domain.tag import MoveTags, decide_moves, untagged

# So many tags of a manifest are deleted by one append.
UNTAGGED_MAX = 250


@event("ManifestPushed")
class ManifestPushed(Event):
    """The repository serves the manifest under this media type. Its facts stand in the log's content."""

    repository: str
    digest: str
    media_type: str
    size: int
    subject: str | None = None


@event("ManifestDeleted")
class ManifestDeleted(Event):
    """The repository no longer serves the manifest."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that a repository has: the size of its bytes."""

    size: int


def to_state(manifest: Manifest) -> str:
    """The manifest as the small JSON text that the store keeps beside its stream."""
    return f'{{"size":{manifest.size}}}'


def from_state(state: str) -> Manifest:
    """The manifest that `to_state` wrote."""
    return Manifest(**json.loads(state))


def present_manifest(found: StreamState) -> Manifest | None:
    """The manifest that stands in a stream of manifests; None if there is none now."""
    return from_state(found.state) if found.ref == PRESENT and found.state is not None else None


@dataclass(frozen=True, slots=True)
class ManifestUnknown(Reason):
    """The repository has no such manifest."""

    digest: str


@dataclass(frozen=True, slots=True)
class SizeDiffers(Reason):
    """The manifest gives another size, `named`, for something that has `size` bytes."""

    digest: str
    size: int
    named: int


@dataclass(frozen=True, slots=True)
class TooManyTags(Reason):
    """One append does not delete so many tags: some are to be deleted before, by `decide_untagging`."""


@dataclass(frozen=True, slots=True)
class PushManifest:
    """Let the repository serve a manifest, and let tags name it.

    `match` is required of the first tag where the client pushes `by_tag`, otherwise of the manifest itself.
    """

    repository: RepositoryName
    digest: Digest
    media_type: str
    size: int
    facts: Facts
    tags: tuple[TagName, ...] = ()
    by_tag: bool = False
    match: Match = NO_MATCH


Held = Manifest | Link


def streams_named(repository: RepositoryName, facts: Facts) -> list[str]:
    """The streams whose states tell which of the things that a manifest names the repository has."""
    streams: dict[str, None] = {}
    for each in facts.references:
        streams[link_stream(repository, each.digest)] = None
        if may_be_manifest(each):
            streams[manifest_stream(repository, each.digest)] = None
    return list(streams)


def held(repository: RepositoryName, facts: Facts, states: Mapping[str, StreamState]) -> list[Held | None]:
    """The things that the repository has for each reference of a manifest, by the states of `streams_named`."""
    return [_held(repository, each, states) for each in facts.references]


def _held(repository: RepositoryName, reference: Reference, states: Mapping[str, StreamState]) -> Held | None:
    if may_be_manifest(reference):
        manifest = present_manifest(states[manifest_stream(repository, reference.digest)])
        if manifest is not None:
            return manifest
    return live_link(states[link_stream(repository, reference.digest)])


def decide_push(sizes: Sequence[int | None], command: PushManifest) -> Decision | Refusal:
    """Push the manifest and move its tags, if everything that it names is there and stays until the append.

    `sizes` has the number of bytes that the repository has for each reference of the manifest; None if it has nothing
    whole.
    """
    refusal = _check_sizes(sizes, command.facts)
    if refusal is not None:
        return refusal
    named = named_by(command.repository, command.facts)
    moves = decide_moves(
        MoveTags(command.repository, command.tags, command.digest, command.match if command.by_tag else NO_MATCH)
    )
    required = () if command.by_tag else _required(command)
    return Decision(
        (created(command.repository), _pushed(command, named), *moves.events),
        (*moves.requires, *required, *named.requires),
        named.references,
    )


def _check_sizes(sizes: Sequence[int | None], facts: Facts) -> Refusal | None:
    """Refuse the first wrong size, or else list everything that is missing."""
    missing = []
    for reference, size in zip(facts.references, sizes, strict=True):
        if size is None:
            if reference.required:
                missing.append(NamedMissing(reference.digest))
        elif reference.size is not None and reference.size != size:
            return Refusal((SizeDiffers(reference.digest, size, reference.size),))
    return Refusal(tuple(missing)) if missing else None


def _pushed(command: PushManifest, named: Named) -> NewEvent:
    repository, digest = command.repository, str(command.digest)
    return new_event(
        manifest_stream(repository, digest),
        repository,
        ManifestPushed(repository, digest, command.media_type, command.size, command.facts.subject),
        ref=PRESENT,
        state=to_state(Manifest(command.size)),
        refers_to=named.refers_to,
        content=digest,
    )


def _required(command: PushManifest) -> tuple[Requirement, ...]:
    def named(etag: str) -> str:
        return PRESENT if etag == str(command.digest) else "another digest"

    return command.match.requirements(manifest_stream(command.repository, command.digest), named)


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    """Let the repository serve the manifest no longer; the tags that name it go with it."""

    repository: RepositoryName
    digest: Digest


def decide_deletion(command: DeleteManifest) -> Decision:
    """Delete the manifest and its tags in one append; if they are too many, some have to go before."""
    repository, digest = command.repository, str(command.digest)
    stream = manifest_stream(repository, digest)
    deleted = new_event(stream, repository, ManifestDeleted(repository, digest), ref=None, refers_to=(), content=digest)
    few = Requirement(AtMost(stream, tag_prefix(repository), UNTAGGED_MAX), TooManyTags())
    return Decision((deleted, _untagged(command)), (_present(command), few))


def decide_untagging(command: DeleteManifest) -> Decision:
    """Delete as many tags of a manifest as one append may, while the manifest stands."""
    return Decision((_untagged(command),), (_present(command),))


def _untagged(command: DeleteManifest) -> Expand:
    return untagged(command.repository, command.digest, UNTAGGED_MAX)


def _present(command: DeleteManifest) -> Requirement:
    stream = manifest_stream(command.repository, command.digest)
    return Requirement(RefIs(((stream, PRESENT),)), ManifestUnknown(str(command.digest)))
