"""The content of a registry as plain sets, and the outcome that each command must have: the rules in a second form."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from domain import manifest as manifests
from domain import tag as tags
from domain.blob import CommitBlob, decide_commit
from domain.decision import Decision, Reason, Refusal
from domain.digests import Digest, digest_of
from domain.facts import Facts, Reference
from domain.link import BlobUnknown, Link, MountBlob, UnlinkBlob, decide_mount, decide_unlinking
from domain.manifest import DeleteManifest, ManifestUnknown, PushManifest, SizeDiffers
from domain.names import RepositoryName, TagName
from domain.preconditions import EXISTS, Match, PreconditionFailed
from domain.references import NAMED_DIRECTLY_MAX, NamedMissing
from domain.streams import LIVE, PRESENT, blob_stream, link_stream, manifest_stream, repository_stream, tag_stream
from domain.tag import DeleteTag, TagUnknown
from tests.domain.streams import Streams

SIZE = 7
REPOSITORIES = (RepositoryName("a"), RepositoryName("a/b"))
TAGS = (TagName("latest"), TagName("v1"), TagName("v2"))
BLOBS = tuple(digest_of("sha256", bytes([number])) for number in range(4))

Command = CommitBlob | MountBlob | UnlinkBlob | PushManifest | DeleteManifest | DeleteTag


def image(config: Digest, *layers: Digest, size: int = SIZE) -> Facts:
    """The facts of an image that says that each layer has this size."""
    named = [Reference("layer", str(each), "application/x-layer", size) for each in layers]
    return Facts("manifest", (Reference("config", str(config), "application/x-config", SIZE), *named))


IMAGES = (
    image(BLOBS[0], BLOBS[1]),
    image(BLOBS[0], *BLOBS[1:], BLOBS[1]),
    image(BLOBS[0], BLOBS[2], size=SIZE + 1),
    Facts("manifest", (Reference("layer", str(BLOBS[3]), "application/x-foreign", SIZE, required=False),)),
)
MANIFESTS = tuple(digest_of("sha256", b"manifest" + bytes([number])) for number in range(6))
INDEXES = (
    Facts("index", tuple(Reference("child", str(each), "application/x-image", SIZE) for each in MANIFESTS[:2])),
    # Build caches name blobs in an index, under a type of their own or as if they were manifests.
    Facts(
        "index",
        (
            Reference("child", str(BLOBS[1]), "application/x-image"),
            Reference("blob", str(BLOBS[2]), "application/x-layer", SIZE),
        ),
    ),
)
FACTS = dict(zip(MANIFESTS, (*IMAGES, *INDEXES), strict=True))


@dataclass
class Plain:
    """Links and manifests as (repository, digest), and the digest that each (repository, tag) names.

    The references of a manifest that names more than `directly_max` things are judged first, as a set.
    """

    links: set[tuple[str, str]] = field(default_factory=set)
    manifests: set[tuple[str, str]] = field(default_factory=set)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    repositories: set[str] = field(default_factory=set)
    directly_max: int = NAMED_DIRECTLY_MAX

    def refs(self) -> dict[str, str]:
        """The refs of all streams that live."""
        return (
            {link_stream(*each): LIVE for each in self.links}
            | {manifest_stream(*each): PRESENT for each in self.manifests}
            | {tag_stream(*each): manifest_stream(each[0], digest) for each, digest in self.tags.items()}
            | {blob_stream(each): LIVE for each in self.blobs}
            | {repository_stream(each): LIVE for each in self.repositories}
        )

    def asked(self, command: Command) -> tuple[Reason, ...]:
        """The reasons that speak against a command before any append."""
        match command:
            case PushManifest():
                references = command.facts.references
                for each in references:
                    if each.size not in (None, SIZE) and self._has(command.repository, each):
                        return (SizeDiffers(each.digest, SIZE, each.size or 0),)
                return _missing(each for each in references if not self._has(command.repository, each))
            case MountBlob():
                return () if self._links(command.source, command.digest) else (BlobUnknown(str(command.digest)),)
        return ()

    def appended(self, command: Command) -> tuple[Reason, ...]:
        """The reasons that speak against a command that was decided; without any it has happened now."""
        reasons = self._against(command)
        if not reasons:
            self._happen(command)
        return reasons

    def _against(self, command: Command) -> tuple[Reason, ...]:
        match command:
            case PushManifest(repository=repository, tags=tags, digest=digest, match=match):
                references = command.facts.references
                missing = _missing(each for each in references if not self._has(repository, each))
                if len({each.digest for each in references}) > self.directly_max and missing:
                    return missing
                named = self.tags.get((repository, tags[0])) if command.by_tag else self._present(repository, digest)
                return missing if _matches(match, named) else (PreconditionFailed(),)
            case DeleteManifest(repository, digest):
                return () if self._present(repository, digest) else (ManifestUnknown(str(digest)),)
            case DeleteTag(repository, tag, match):
                named = self.tags.get((repository, tag))
                if named is None:
                    return (TagUnknown(tag),)
                return () if _matches(match, named) else (PreconditionFailed(),)
            case UnlinkBlob(repository, digest) | MountBlob(source=repository, digest=digest):
                return () if self._links(repository, digest) else (BlobUnknown(str(digest)),)
        return ()

    def _happen(self, command: Command) -> None:
        repository = command.repository
        match command:
            case CommitBlob(digest=digest) | MountBlob(digest=digest):
                self.links.add((repository, str(digest)))
                self.blobs.add(str(digest))
                self.repositories.add(repository)
            case UnlinkBlob(digest=digest):
                self.links.discard((repository, str(digest)))
            case PushManifest(digest=digest):
                self.manifests.add((repository, str(digest)))
                self.tags.update({(repository, tag): str(digest) for tag in command.tags})
                self.repositories.add(repository)
            case DeleteManifest(digest=digest):
                self.manifests.discard((repository, str(digest)))
                named = [each for each in TAGS if self.tags.get((repository, each)) == str(digest)]
                for tag in named:
                    del self.tags[repository, tag]
            case DeleteTag(tag=tag):
                del self.tags[repository, tag]

    def _links(self, repository: str, digest: Digest | str) -> bool:
        return (repository, str(digest)) in self.links

    def _present(self, repository: str, digest: Digest) -> str | None:
        return str(digest) if (repository, str(digest)) in self.manifests else None

    def _has(self, repository: str, reference: Reference) -> bool:
        either = reference.role in ("child", "blob") and (repository, reference.digest) in self.manifests
        return either or self._links(repository, reference.digest)


def _missing(references: Iterable[Reference]) -> tuple[Reason, ...]:
    return tuple(NamedMissing(each.digest) for each in references if each.required)


def _matches(match: Match, named: str | None) -> bool:
    """True if the condition holds for a tag that names this digest, or nothing."""
    if EXISTS in match.none_of and named is not None:
        return False
    if not match.one_of:
        return named not in match.none_of
    return named not in match.none_of and (named in match.one_of or (EXISTS in match.one_of and named is not None))


def decide(streams: Streams, command: Command) -> Decision | Refusal:
    """Ask and decide, as the command side does; every file is whole."""
    match command:
        case CommitBlob():
            return decide_commit(streams.state(blob_stream(command.digest)), command)
        case MountBlob():
            return _decide_mount(streams, command)
        case UnlinkBlob():
            return decide_unlinking(command)
        case DeleteManifest():
            return manifests.decide_deletion(command)
        case DeleteTag():
            return tags.decide_deletion(command)
        case PushManifest():
            states = streams.ask(manifests.streams_named(command.repository, command.facts))
            held = manifests.held(command.repository, command.facts, states)
            return manifests.decide_push([None if each is None else each.size for each in held], command)


def _decide_mount(streams: Streams, command: MountBlob) -> Decision | Refusal:
    if streams.state(link_stream(command.source, command.digest)).ref != LIVE:
        return Refusal((BlobUnknown(str(command.digest)),))
    return decide_mount(Link(SIZE, 0), command)
