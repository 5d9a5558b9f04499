"""One transaction of a projector folds a bounded number of references of manifests, whichever feed it has."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from eventstore.feed.consumer import Batch
from eventstore.feed.members import Member, Membership
from eventstore.feed.metrics import HOLES
from eventstore.feed.records import FeedRecord
from eventstore.feed.settings import KafkaSettings
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.types import Recorded
from projections.builds.verify import verify
from projections.engine import build_tables, checkpoints, folding, kafka_feed
from projections.engine.kafka_feed import KafkaFeed, lease_name
from projections.engine.runner import advance
from projections.engine.setup import engine_for
from projections.models import blob_references
from tests.api import Registry
from tests.postgres import Database

MODELS = (blob_references.model,)
# A manifest of the test names a config and two layers.
NAMED = 3
MOST = 2 * NAMED + 1
FOR_EVER_S = 180.0


class Everything(Membership):
    """A process that has every lease, and no heart."""

    @property
    def held(self) -> frozenset[str]:
        return frozenset(lease_name(each, partition) for each in MODELS for partition in range(DEFAULT_PARTITIONS))


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    """A projector's connection."""
    with engine_for(database.app_url).connect() as made:
        yield made


@pytest.fixture
def feed(connection: sa.Connection, database: Database) -> KafkaFeed:
    """A projector to which records are given by hand: there is no Kafka."""
    made = KafkaFeed(connection, MODELS, KafkaSettings("127.0.0.1:1"), Everything(database.app_url, Member("x")), 2000)
    made._share()
    return made


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bound a transaction to the references of two manifests; the number of manifests that each transaction folds."""
    counts: list[int] = []
    fold = folding.fold_into

    def counting(connection: sa.Connection, model: Any, table: sa.Table, events: Sequence[Recorded]) -> None:
        counts.append(len(events))
        fold(connection, model, table, events)

    monkeypatch.setattr(folding, "TRANSACTION_REFERENCES", MOST)
    monkeypatch.setattr(checkpoints, "fold_into", counting)
    return counts


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a turn of a build last until it is level."""
    monkeypatch.setattr(kafka_feed, "CATCH_UP_S", FOR_EVER_S)


@pytest.fixture
def log(registry: Registry) -> list[Recorded]:
    """The events of some pushes and deletions in several repositories."""
    for number in range(10):
        registry.push(f"u/app{number % 4}", f"t{number}", bytes([number]), bytes([number, 1]))
    for number in range(3):
        registry.delete(f"/v2/u/app{number}/manifests/t{number}")
    return registry.rooms.store.read_log(0, 10_000)


def records_of(
    log: Sequence[Recorded], connection: sa.Connection, leave_out: Callable[[Recorded], bool] = lambda each: False
) -> dict[int, list[FeedRecord]]:
    """The relay's records of the log by partition, without those of some events."""
    (epoch,) = connection.exec_driver_sql("SELECT epoch FROM log.es_log WHERE log_id = 0").one()
    connection.commit()
    found: dict[int, list[FeedRecord]] = {}
    for partition, events in groupby(sorted(log, key=lambda each: each.partition), lambda each: each.partition):
        prev = 0
        for offset, each in enumerate(events):
            if not leave_out(each):
                record = FeedRecord(partition, offset, each.position, prev, epoch, each)
                found.setdefault(partition, []).append(record)
            prev = each.position
    return found


def assert_bounded(folded: list[int], log: Sequence[Recorded], database: Database) -> None:
    """Check that every transaction was bounded, that each event was folded once, and that the rows are right."""
    assert max(folded) <= MOST // NAMED
    assert sum(folded) == sum(each.type in blob_references.model.types for each in log)
    assert [each.samples for each in verify(database.app_url, blob_references.model.name) if not each.equal] == []


def checkpoint_of(connection: sa.Connection, build: str) -> Mapping[int, int]:
    """A build's position in each partition."""
    query = "SELECT partition, position FROM readmodel.checkpoint WHERE build = %(build)s"
    return {row[0]: row[1] for row in connection.exec_driver_sql(query, {"build": build})}


def level(connection: sa.Connection, head: int) -> bool:
    """True if the model has folded the whole log in the partitions that have an event."""
    live = build_tables.live(connection, blob_references.model)
    query = (
        "SELECT NOT EXISTS (SELECT FROM readmodel.checkpoint AS c JOIN log.es_event AS e ON e.partition = c.partition"
        " WHERE c.build = %(build)s AND e.position > c.position AND e.position <= %(head)s)"
    )
    reached = connection.exec_driver_sql(query, {"build": live.id, "head": head}).scalar_one()
    connection.commit()
    return bool(reached)


@pytest.mark.usefixtures("long_turns")
@pytest.mark.parametrize("lost", ["nothing", "all but the last of each partition", "every other one"])
def test_events_that_kafka_brings_are_folded_in_bounded_transactions(
    log: list[Recorded], database: Database, connection: sa.Connection, feed: KafkaFeed, folded: list[int], lost: str
) -> None:
    """No transaction is larger, however much Kafka brings at once and however large its holes are."""
    last = {each.partition: each.position for each in log}
    lose: dict[str, Callable[[Recorded], bool]] = {
        "nothing": lambda each: False,
        "all but the last of each partition": lambda each: each.position != last[each.partition],
        "every other one": lambda each: each.position % 2 == 0 and each.position != last[each.partition],
    }
    records = records_of(log, connection, lose[lost])
    feed._take(Batch("topic", records), threading.Event())
    assert level(connection, log[-1].position)
    assert_bounded(folded, log, database)
    places = feed._places(frozenset(records))
    assert {each: places[each].next_offset for each in records} == {
        partition: some[-1].offset + 1 for partition, some in records.items()
    }


@pytest.mark.usefixtures("long_turns")
def test_a_transaction_that_is_cut_moves_no_checkpoint_back(
    log: list[Recorded],
    database: Database,
    connection: sa.Connection,
    feed: KafkaFeed,
    folded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The position of the cut lies before the checkpoint of another partition of the same batch."""
    build, stop = feed._builds[0], threading.Event()
    records = records_of(log, connection)
    ahead = max(records, key=lambda each: len(records[each]))
    # This partition is folded but for its last event, and the others are not folded at all.
    feed._take(Batch("topic", {ahead: records[ahead][:-1]}), stop)
    positions = [checkpoint_of(connection, build.id)]
    connection.commit()
    moving = checkpoints.apply

    def noting(connection: sa.Connection, *arguments: Any, **options: Any) -> None:
        moving(connection, *arguments, **options)
        positions.append(checkpoint_of(connection, build.id))

    monkeypatch.setattr(kafka_feed, "apply", noting)
    holes = HOLES._value.get()
    feed._take(Batch("topic", {ahead: records.pop(ahead)[-1:]} | records), stop)
    assert len(positions) > 2
    for before, after in pairwise(positions):
        assert [partition for partition in before if after[partition] < before[partition]] == []
    assert positions[0][ahead] > 0
    assert HOLES._value.get() == holes
    assert_bounded(folded, log, database)


def test_events_that_are_left_when_a_turn_ends_come_from_the_store(
    log: list[Recorded], database: Database, connection: sa.Connection, feed: KafkaFeed, folded: list[int]
) -> None:
    """So other builds, and the end of the process, need not wait until a build has folded all that Kafka brought."""
    stop = threading.Event()
    stop.set()
    feed._take(Batch("topic", records_of(log, connection)), stop)
    assert len(folded) == 1
    while feed._catch_up(feed._builds[0], range(DEFAULT_PARTITIONS), isolate=False)[1]:
        pass
    assert level(connection, log[-1].position)
    assert_bounded(folded, log, database)


def test_events_that_kafka_does_not_bring_are_folded_in_bounded_transactions(
    log: list[Recorded], database: Database, connection: sa.Connection, feed: KafkaFeed, folded: list[int]
) -> None:
    """They come from the store, for all partitions together."""
    (build,) = feed._builds
    partitions = range(DEFAULT_PARTITIONS)
    while feed._catch_up(build, partitions, isolate=False)[1]:
        pass
    assert level(connection, log[-1].position)
    assert_bounded(folded, log, database)


def test_a_projector_that_the_store_feeds_folds_in_bounded_transactions(
    log: list[Recorded], database: Database, connection: sa.Connection, folded: list[int]
) -> None:
    """A batch of events ends where its references would become too many."""
    live = build_tables.live(connection, blob_references.model)
    connection.commit()
    while advance(connection, live, log[-1].position) < log[-1].position:
        pass
    assert_bounded(folded, log, database)
