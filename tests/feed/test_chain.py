"""A consumer gets the sequence of the log, whatever Kafka loses, repeats or swaps."""

import random
import uuid
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from eventstore.feed.chain import Run, follow
from eventstore.feed.records import FeedRecord
from eventstore.types import Recorded

EPOCH = 3
BATCH = 3


def recorded(position: int) -> Recorded:
    """An event of which only the position matters."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Recorded(
        *(position, f"s{position}", 1, "k", 0, "T", 1, uuid.UUID(int=position), moment, "a", "r"),
        *(None, None, None, "{}"),
    )


def records_of(positions: list[int]) -> list[FeedRecord]:
    """The records that a relay makes of a partition with these positions."""
    previous = [0, *positions[:-1]]
    return [
        FeedRecord(0, offset, position, prev, EPOCH, recorded(position))
        for offset, (position, prev) in enumerate(zip(positions, previous, strict=True))
    ]


class Log:
    """A partition of the log, read in small batches."""

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions

    def read(self, after: int, upto: int) -> tuple[list[Recorded], int]:
        """The first events of the positions (after, upto], and the position that they reach."""
        found = [recorded(each) for each in self.positions if after < each <= upto][:BATCH]
        return found, found[-1].position if len(found) == BATCH else upto


def consume(log: Log, records: list[FeedRecord], last: int = 0) -> tuple[list[int], int, list[Run]]:
    """Give the same records until all are taken; answers the positions seen, the last position, and the runs."""
    seen: list[int] = []
    runs = []
    while True:
        run = follow(last, records, EPOCH, log.positions[-1] if log.positions else 0, log.read)
        runs.append(run)
        seen += [each.position for each in run.events]
        last = run.position
        if run.complete:
            return seen, last, runs


POSITIONS = st.lists(st.integers(1, 200), min_size=1, max_size=40, unique=True).map(sorted)


@given(POSITIONS, st.integers(0, 2**32), st.integers(0, 20))
def test_drops_duplicates_and_swaps_never_change_the_sequence(positions: list[int], seed: int, faults: int) -> None:
    """A last watermark, as the relay sends one, shows even the loss of the last record."""
    chance = random.Random(seed)
    log = Log(positions)
    records = records_of(positions)
    for _ in range(faults):
        if not records:
            break
        at = chance.randrange(len(records))
        match chance.choice(["drop", "repeat", "swap", "old epoch", "future"]):
            case "drop":
                records.pop(at)
            case "repeat":
                records.insert(chance.randrange(len(records) + 1), records[at])
            case "swap":
                other = chance.randrange(len(records))
                records[at], records[other] = records[other], records[at]
            case "old epoch":
                each = records[at]
                records.insert(at, FeedRecord(0, each.offset, each.position, each.prev, EPOCH - 1, recorded(999)))
            case _:
                records.insert(at, FeedRecord(0, 0, positions[-1] + 5, 0, EPOCH, recorded(positions[-1] + 5)))
    records.append(FeedRecord(0, 0, positions[-1], positions[-1], EPOCH, None))
    seen, last, _ = consume(log, records)
    assert seen == positions
    assert last == positions[-1]


@given(POSITIONS)
def test_a_feed_without_faults_is_never_repaired(positions: list[int]) -> None:
    """There are no holes and no duplicates, and nothing is read from the store."""
    seen, _, runs = consume(Log(positions), records_of(positions))
    assert seen == positions
    assert [(run.holes, run.repaired, run.duplicates, run.discarded) for run in runs] == [(0, 0, 0, 0)]
    assert runs[-1].next_offset == len(positions)


def test_a_hole_larger_than_a_batch_is_filled_in_several_runs() -> None:
    """Each run is bounded, and none leaves an event out."""
    positions = list(range(1, 30))
    seen, last, runs = consume(Log(positions), records_of(positions)[-1:])
    assert seen == positions
    assert last == 29
    assert len(runs) > 5
    assert all(len(run.events) <= BATCH + 1 for run in runs)
    assert [run.complete for run in runs] == [False] * (len(runs) - 1) + [True]


def test_a_watermark_moves_a_partition_that_has_nothing_new() -> None:
    """A hole before it is filled from the store first, and a watermark beyond the head of the log is left out."""
    log = Log([4, 8])
    assert consume(log, [FeedRecord(0, 9, 20, 8, EPOCH, None)], last=8)[1] == 8
    log = Log([4, 8, 30])
    seen, last, _ = consume(log, [FeedRecord(0, 9, 20, 8, EPOCH, None)], last=4)
    assert (seen, last) == ([8], 20)
