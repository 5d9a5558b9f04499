"""The repository: known from its first blob or manifest on."""

from domain.event import Event, event


@event("RepositoryCreated")
class RepositoryCreated(Event):
    """Something was put into the repository for the first time."""

    repository: str
