"""The repository: known from its first blob or manifest on."""

from functools import lru_cache

from domain.changes import ENSURE, NewEvent, new_event
from domain.event import Event, event
from domain.names import RepositoryName
from domain.streams import LIVE, repository_stream

_KEPT = 1024


@event("RepositoryCreated")
class RepositoryCreated(Event):
    """Something was put into the repository for the first time."""

    repository: str


@lru_cache(_KEPT)
def created(repository: RepositoryName) -> NewEvent:
    """RepositoryCreated, unless it stands already: any number of first pushes may bring it (rule: modes of events)."""
    return new_event(repository_stream(repository), repository, RepositoryCreated(repository), mode=ENSURE, ref=LIVE)
