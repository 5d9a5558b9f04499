"""All event types, imported so that they are declared: who decodes events, or lists their types, does it from here."""

from domain.blob import BlobCommitted
from domain.event import decode, event_types
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
]
