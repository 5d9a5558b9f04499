"""The tag: a name that moves from manifest to manifest; every move is kept."""

from domain.event import Event, event


@event("TagMoved")
class TagMoved(Event):
    """The tag names `digest` now. What it named before is the event's `prev_ref`, written by the store."""

    repository: str
    tag: str
    digest: str


@event("TagDeleted")
class TagDeleted(Event):
    """The tag names nothing any more. What it named before is the event's `prev_ref`."""

    repository: str
    tag: str
