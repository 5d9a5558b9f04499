"""A model of a registry in memory: plain dictionaries, and the effect of each command on them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from domain.media_types import OCI_INDEX, OCI_MANIFEST
from tests.api import CONFIG_TYPE, image, index, sha256

Change = tuple[str, str | None, str | None, str | None]
EXPIRY_H = 24


@dataclass(frozen=True)
class Manifest:
    """A manifest, and the (role, digest) of each thing that it names and that must be there."""

    body: bytes
    media_type: str
    needs: tuple[tuple[str, str], ...]
    artifact_type: str | None = None
    subject: str | None = None

    @property
    def digest(self) -> str:
        """Its digest."""
        return sha256(self.body)

    @property
    def descriptor(self) -> dict[str, object]:
        """Its entry in the list of its subject's referrers."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}
        return found if self.artifact_type is None else found | {"artifactType": self.artifact_type}


def image_of(config: bytes, layers: Iterable[bytes], subject: Manifest | None = None) -> Manifest:
    """An image; with a subject it is a referrer."""
    layers = tuple(layers)
    more = {}
    if subject is not None:
        more["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.body)}
    body = image(config, *layers, **more)
    needs = [("config", sha256(config)), *(("layer", sha256(each)) for each in layers)]
    return Manifest(body, OCI_MANIFEST, tuple(needs), CONFIG_TYPE, subject.digest if subject else None)


def index_of(children: Iterable[Manifest]) -> Manifest:
    """An index over images."""
    children = tuple(children)
    needs = tuple(("child", each.digest) for each in children)
    return Manifest(index(*(each.body for each in children)), OCI_INDEX, needs)


@dataclass
class Session:
    """An upload session; `moved_at` is the hour of its last change."""

    location: str
    repository: str
    moved_at: float
    data: bytes = b""
    digest: str | None = None
    is_open: bool = True


@dataclass
class Repository:
    """The present and past content of one repository, and its changes, oldest first."""

    name: str
    known: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    tags_ever: set[str] = field(default_factory=set)
    blobs_ever: set[str] = field(default_factory=set)
    manifests_ever: dict[str, Manifest] = field(default_factory=dict)

    def link(self, data: bytes, what: str) -> None:
        """Note that a blob was uploaded or mounted."""
        self._create()
        self.blobs_ever.add(sha256(data))
        if sha256(data) not in self.blobs:
            self.blobs[sha256(data)] = data
            self.history.append((what, None, None, sha256(data)))

    def unlink(self, digest: str) -> bool:
        """Remove a blob; False if it is not there."""
        if self.blobs.pop(digest, None) is None:
            return False
        self.history.append(("blob-unlinked", None, digest, None))
        return True

    def has_all(self, manifest: Manifest) -> bool:
        """True if all that a manifest needs is there."""
        return all(digest in (self.manifests if role == "child" else self.blobs) for role, digest in manifest.needs)

    def push(self, manifest: Manifest, tags: Iterable[str]) -> None:
        """Note that a manifest was accepted under these tags, if any."""
        self._create()
        digest = manifest.digest
        what = "manifest-repeated" if digest in self.manifests else "manifest-pushed"
        self.history.append((what, None, None, digest))
        self.manifests[digest] = self.manifests_ever[digest] = manifest
        for tag in tags:
            before = self.tags.get(tag)
            what = "tag-created" if before is None else "tag-repeated" if before == digest else "tag-moved"
            self.history.append((what, tag, before, digest))
            self.tags[tag] = digest
            self.tags_ever.add(tag)

    def untag(self, tag: str) -> bool:
        """Remove a tag; False if it is not there."""
        before = self.tags.pop(tag, None)
        if before is None:
            return False
        self.history.append(("tag-deleted", tag, before, None))
        return True

    def delete(self, digest: str) -> bool:
        """Remove a manifest with all its tags; False if it is not there."""
        if self.manifests.pop(digest, None) is None:
            return False
        self.history.append(("manifest-deleted", None, digest, None))
        for tag in sorted(tag for tag, named in self.tags.items() if named == digest):
            self.untag(tag)
        return True

    def _create(self) -> None:
        if not self.known:
            self.known = True
            self.history.append(("repository-created", None, None, None))


@dataclass
class Model:
    """A few repositories under one prefix, which nobody else writes to, and the sessions in them."""

    prefix: str
    names: tuple[str, ...] = ("a", "b")
    hour: float = 0.0
    repositories: dict[str, Repository] = field(init=False)
    sessions: list[Session] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The repositories, which nobody knows yet."""
        self.repositories = {f"{self.prefix}/{each}": Repository(f"{self.prefix}/{each}") for each in self.names}

    def pass_time(self, hours: float) -> None:
        """Let hours pass, after which upkeep removes the sessions that were idle for the time of expiry."""
        self.hour += hours
        for each in self.sessions:
            if each.is_open and self.hour - each.moved_at > EXPIRY_H:
                each.is_open = False
