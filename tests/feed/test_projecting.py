"""Read models that Kafka feeds are level with the log by Kafka alone, and right whatever Kafka does."""

import random
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from eventstore.feed import consumer
from eventstore.feed.bell import Bell
from eventstore.feed.consumer import Batch, FeedReader
from eventstore.feed.kafka import make_admin, make_consumer
from eventstore.feed.metrics import DUPLICATES, EVENTS_CONSUMED, HOLES
from eventstore.feed.settings import EVENTS, TOPICS, KafkaSettings
from eventstore.feed.topics import describe
from eventstore.partition import DEFAULT_PARTITIONS
from projections.all_models import MODELS
from projections.builds import admin
from projections.engine import kafka_feed
from tests.api import Registry, registry_over
from tests.feed.running import assert_feed_right, assert_right, fed, projecting, published, relaying
from tests.folded import wait_folded
from tests.kafka import Broker
from tests.postgres import Database, set_partitions
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("kafka")

SEED = 20261124
DEADLINE_S = 60.0
FOR_EVER_S = 180.0


def count(counter: Any) -> float:
    """The value of a counter in this process."""
    return float(counter._value.get())


def push(registry: Registry, times: int, start: int = 0) -> int:
    """Push, move and delete in several repositories; answers the head of the log."""
    for number in range(start, start + times):
        name = f"u/app{number % 5}"
        digest = registry.push(name, f"t{number % 4}", bytes([number % 7]))
        if number % 3 == 0:
            registry.delete(f"/v2/{name}/manifests/t{number % 4}")
        if number % 7 == 0:
            registry.delete(f"/v2/{name}/manifests/{digest}")
    return registry.head_position()


def settled(database: Database, head: int) -> None:
    """Wait until every read model has folded the log, and check that all are right."""
    wait_folded(database.app_url, head, DEADLINE_S)
    assert_right(database.app_url)


def shared(database: Database, projectors: int) -> bool:
    """True if so many projectors feed each read model, and their shares of partitions differ by one at most."""
    shares = [Counter(part.owner for part in each.partitions) for each in admin.status(database.app_url).models]
    return all(
        None not in each and len(each) == projectors and max(each.values()) - min(each.values()) < 2 for each in shares
    )


def test_without_faults_nothing_is_read_from_the_store(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One relay and three projectors share the partitions, and every event comes once and by way of Kafka."""
    # On a busy machine Kafka may need longer than a projector usually waits before it reads the store.
    monkeypatch.setattr(kafka_feed, "STALLED_S", DEADLINE_S / 2)
    with fed(database.app_url, kafka, projectors=3):
        # Until relay, topics and shares are there, the store may feed; from then on Kafka alone does.
        settled(database, push(registry, 1))
        eventually(lambda: shared(database, 3), what="three projectors with a share each")
        settled(database, push(registry, 1, 1))
        before = [count(each) for each in (EVENTS_CONSUMED.labels("store"), HOLES)]
        settled(database, push(registry, 40, 2))
    assert [count(each) for each in (EVENTS_CONSUMED.labels("store"), HOLES)] == before
    assert_feed_right(database.app_url, kafka)


@pytest.mark.parametrize("partitions", [4, 64])
def test_topics_and_shares_have_as_many_partitions_as_the_log(
    database: Database, kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """Each partition is leased by one of the projectors and fed by Kafka."""
    monkeypatch.setattr(kafka_feed, "STALLED_S", DEADLINE_S / 2)
    set_partitions(database, partitions)
    with registry_over(database, tmp_path) as registry, fed(database.app_url, kafka, projectors=2):
        settled(database, push(registry, 1))
        before = count(EVENTS_CONSUMED.labels("store"))
        settled(database, push(registry, 10, 1))
        assert count(EVENTS_CONSUMED.labels("store")) == before
        owned = {part.partition for each in admin.status(database.app_url).models for part in each.partitions}
        assert owned == set(range(partitions))
        with closing(make_admin(kafka)) as client:
            counts = {kind: count for kind, (_, count) in describe(client, [kafka.topic(EVENTS)]).items()}
        assert counts == {kafka.topic(EVENTS): partitions}


def test_a_projector_that_rests_is_woken_by_a_push(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database wakes it, and it folds what Kafka brings then, long before it would look by itself."""
    monkeypatch.setattr(kafka_feed, "STALLED_S", FOR_EVER_S)
    monkeypatch.setattr(kafka_feed, "CALM_S", 1.0)
    monkeypatch.setattr(consumer, "RESTING_S", FOR_EVER_S)
    monkeypatch.setattr(consumer, "WARM_S", 0.0)
    rests: list[float] = []
    rest = FeedReader.rest

    def resting(reader: FeedReader) -> None:
        rests.append(time.monotonic())
        rest(reader)

    monkeypatch.setattr(FeedReader, "rest", resting)
    with fed(database.app_url, kafka):
        settled(database, push(registry, 1))
        monkeypatch.setattr(Bell.wait, "__defaults__", (FOR_EVER_S,))
        for number in range(1, 3):
            rests.clear()
            # The reader comes to rest after a poll.
            eventually(lambda: bool(rests) and time.monotonic() - rests[-1] > 0.5, what="it never rests")
            settled(database, push(registry, 1, number))


def test_drops_duplicates_and_swaps_on_the_way_change_nothing(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test injects them between relay and projector at random."""
    print("seed", SEED)
    chance = random.Random(SEED)
    whole = FeedReader.get
    before = [count(HOLES), count(DUPLICATES)]

    def mangled(self: FeedReader, timeout_s: float) -> Batch | None:
        batch = whole(self, timeout_s)
        if batch is None:
            return None
        records = {}
        for partition, each in batch.records.items():
            kept = [record for record in each if chance.random() > 0.3]
            kept += [record for record in kept if chance.random() < 0.3]
            if chance.random() < 0.5:
                chance.shuffle(kept)
            records[partition] = kept
        return Batch(batch.topic_id, records)

    monkeypatch.setattr(FeedReader, "get", mangled)
    with fed(database.app_url, kafka, projectors=2):
        settled(database, push(registry, 40))
    assert count(HOLES) > before[0]
    assert count(DUPLICATES) > before[1]


def test_projectors_that_all_believe_to_own_everything_fold_each_event_once(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are stored beside the rows, so the projector that comes second finds the work done."""
    everything = frozenset(
        kafka_feed.lease_name(model, partition) for model in MODELS for partition in range(DEFAULT_PARTITIONS)
    )
    monkeypatch.setattr(kafka_feed.KafkaFeed, "_held", property(lambda _: everything))
    with fed(database.app_url, kafka, projectors=3):
        settled(database, push(registry, 30))


def test_topics_that_are_deleted_come_back_and_nothing_is_missing(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """The relay makes them anew; what they held is read from the store."""
    with fed(database.app_url, kafka):
        settled(database, push(registry, 10))
        with closing(make_admin(kafka)) as client:
            client.delete_topics([kafka.topic(each) for each in TOPICS])
        head = push(registry, 10, 10)
        settled(database, head)
        published(database.app_url, head)
        settled(database, push(registry, 5, 20))
        assert_feed_right(database.app_url, kafka)


def test_a_topic_that_was_cut_is_read_on_where_it_begins_now(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """Its offsets are gone, as after a projector was away for longer than the topic's retention."""
    with relaying(database.app_url, kafka):
        with projecting(database.app_url, kafka):
            settled(database, push(registry, 6))
        head = push(registry, 10, 6)
        published(database.app_url, head)
        parts = [TopicPartition(kafka.topic(EVENTS), each) for each in range(DEFAULT_PARTITIONS)]
        with closing(make_consumer(kafka)) as consumer, closing(make_admin(kafka)) as client:
            client.delete_records({part: end for part, end in consumer.end_offsets(parts).items() if end})
        with projecting(database.app_url, kafka):
            settled(database, push(registry, 4, 16))
        assert_feed_right(database.app_url, kafka)


def test_a_broker_that_dies_and_comes_back_empty_costs_nothing_but_time(
    registry: Registry, database: Database, broker: Broker, topic_prefix: str
) -> None:
    """It is killed and comes back, then is killed again and comes back with another cluster id and no topics."""
    settings = broker.settings(topic_prefix)
    with fed(database.app_url, settings):
        settled(database, push(registry, 6))
        broker.kill()
        settled(database, push(registry, 6, 6))
        broker.wipe()
        broker.start()
        head = push(registry, 6, 12)
        settled(database, head)
        published(database.app_url, head)
        assert_feed_right(database.app_url, settings)
