"""All event types. They are imported here so that they are declared before an event is decoded or its type listed."""

from domain.blob import BlobCommitted
from domain.event import decode, event_types, readable_versions
from domain.link import BlobLinked, BlobUnlinked
from domain.manifest import ManifestDeleted, ManifestPushed
from domain.repository import RepositoryCreated
from domain.tag import TagDeleted, TagMoved
from domain.upload import ChunkAppended, UploadCancelled, UploadCommitted, UploadExpired, UploadStarted

__all__ = [
    "BlobCommitted",
    "BlobLinked",
    "BlobUnlinked",
    "ChunkAppended",
    "ManifestDeleted",
    "ManifestPushed",
    "RepositoryCreated",
    "TagDeleted",
    "TagMoved",
    "UploadCancelled",
    "UploadCommitted",
    "UploadExpired",
    "UploadStarted",
    "decode",
    "event_types",
    "readable_events",
]


def readable_events() -> frozenset[str]:
    """Names of what this program can read, such as `TagMoved.1`."""
    return frozenset(f"{name}.{version}" for name, version in readable_versions())
