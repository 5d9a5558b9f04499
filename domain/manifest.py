"""The manifest: pushed into a repository, deleted from it; its bytes and facts are content of the log."""

from domain.event import Event, event


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
