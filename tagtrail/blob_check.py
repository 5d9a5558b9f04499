"""Checks stored bytes against the log, and tells which repositories and manifests a damaged blob concerns."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from blobstore.checking import BlobChecker, Damage
from blobstore.interface import SEEN_FOR_S, BlobName
from domain import blob as blobs
from domain import link as links
from domain.digests import parse_digest
from domain.names import RepositoryName
from domain.streams import LIVE, blob_stream, link_stream, repository_stream
from eventstore.store import Store
from projections.models import blob_references
from projections.reader import Reader

MANIFESTS_MAX = 100
_PAGE = 1000
_log = logging.getLogger(__name__)


class UnknownRepository(Exception):
    """No event was ever written of the repository."""


@dataclass(frozen=True, slots=True)
class LiveBlob:
    """A blob that should be there, with its size in bytes."""

    name: BlobName
    size: int


@dataclass(frozen=True, slots=True)
class DamagedBlob:
    """A damaged blob: sizes in bytes, the new place of its file, and its users as (repository, manifest, role)."""

    digest: str
    damage: Damage
    size: int
    found_size: int | None
    moved_to: str | None
    repositories: list[str]
    manifests: list[tuple[str, str, str]]
    more: bool


def live_blobs(store: Store, repository: RepositoryName | None) -> Iterator[LiveBlob]:
    """Every blob that is kept, or that one repository links, a page at a time. Raises UnknownRepository."""
    if repository is not None and not store.stream_state(repository_stream(repository)).version:
        raise UnknownRepository(repository)
    prefix = blob_stream("") if repository is None else link_stream(repository, "")
    last: str | None = None
    while page := store.streams_named(prefix, last, _PAGE):
        last = page[-1].stream
        for each in page:
            if each.ref == LIVE and each.state is not None:
                digest = parse_digest(each.stream.removeprefix(prefix))
                kept = blobs.from_state(each.state) if repository is None else links.from_state(each.state)
                yield LiveBlob(BlobName(digest, kept.generation), kept.size)


def check_blobs(
    store: Store, reader: Reader, checker: BlobChecker, repository: RepositoryName | None
) -> Iterator[DamagedBlob]:
    """Check each blob and give those that are damaged, after their files were moved away.

    A missing blob that no repository links is no damage, because nobody can ask for it. When this has ended, every
    server answers 404 for the blobs that were given.
    """
    found_at = None
    for blob in live_blobs(store, repository):
        found = checker.check(blob.name, blob.size)
        if found is None:
            continue
        digest = str(blob.name.digest)
        users = blob_references.references(reader, digest, None, MANIFESTS_MAX)
        if found.damage is Damage.MISSING and not users.repositories:
            continue
        found_at = time.monotonic()
        moved_to = None if found.moved_to is None else str(found.moved_to)
        _log.error("blob %s is damaged (%s), its file was moved to %s", digest, found.damage, moved_to or "nowhere")
        yield DamagedBlob(
            digest=digest,
            damage=found.damage,
            size=blob.size,
            found_size=found.size,
            moved_to=moved_to,
            repositories=users.repositories,
            manifests=users.manifests,
            more=users.more or users.more_repositories,
        )
    if found_at is not None:
        # Until then a push could be told that the blob is there, and would not heal it.
        time.sleep(max(0.0, found_at + SEEN_FOR_S - time.monotonic()))
