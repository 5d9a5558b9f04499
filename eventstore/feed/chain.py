"""The log's own sequence, made from Kafka's records (rule: records name the one before).

Duplicates are left out and the events of holes are read from the store.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from eventstore.feed.records import FeedRecord
from eventstore.types import Recorded

# Events of (after, upto] from the store, at most a batch, and how far they reach.
ReadStore = Callable[[int, int], tuple[list[Recorded], int]]


@dataclass(slots=True)
class Run:
    """The events that follow a position without a gap, and counts of the repairs.

    Everything up to `position` is in `events`, those at `missed` from the store; `next_offset` is where the topic goes
    on. `complete` is False if a hole was larger than a batch, or the run was cut: give the same records again then.
    """

    position: int
    events: list[Recorded] = field(default_factory=list)
    next_offset: int | None = None
    duplicates: int = 0
    holes: int = 0
    missed: list[int] = field(default_factory=list)
    discarded: int = 0
    complete: bool = True

    def upto(self, position: int) -> "Run":
        """The part of it up to a position: the same records are to be given again, to go on from there."""
        if self.position <= position:
            return self
        events = [each for each in self.events if each.position <= position]
        missed = [each for each in self.missed if each <= position]
        return replace(self, position=position, events=events, missed=missed, next_offset=None, complete=False)

    @property
    def repaired(self) -> int:
        """The number of events that came from the store."""
        return len(self.missed)


def follow(last: int, records: Sequence[FeedRecord], epoch: int, head: int, read_store: ReadStore) -> Run:
    """The events that the records of one partition add for a reader at position `last`.

    A record of another epoch, or beyond the head of the log, tells of a log that is no more: it is left out, and the
    present events of its positions come from the store.
    """
    run = Run(last)
    for record in records:
        if record.epoch != epoch or record.position > head:
            run.discarded += 1
        elif record.position <= run.position:
            run.duplicates += 1
        elif not _take(run, record, read_store):
            run.complete = False
            return run
        run.next_offset = record.offset + 1
    return run


def _take(run: Run, record: FeedRecord, read_store: ReadStore) -> bool:
    if record.prev > run.position:
        missing, reached = read_store(run.position, record.prev)
        run.holes += 1
        run.missed += [each.position for each in missing]
        run.events += missing
        run.position = reached
        if reached < record.prev:
            return False
    if record.event is not None:
        run.events.append(record.event)
    run.position = record.position
    return True
