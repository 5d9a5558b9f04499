"""The feed over a real Kafka: the relay's records and topics, two relays at once, and what consumers get."""

import json
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from domain.event import event_types
from domain.features import HANDLED
from domain.features import UPLOADS_LOG as UPLOADS_LOG_FEATURE
from domain.streams import UPLOAD_PREFIX
from eventstore.feed import relay, topics
from eventstore.feed.consumer import FeedReader, Place, last_records
from eventstore.feed.kafka import make_admin, make_consumer
from eventstore.feed.members import Member, Membership
from eventstore.feed.records import FeedRecord, record_of
from eventstore.feed.schemas import schemas
from eventstore.feed.settings import EVENTS, UPLOADS, UPLOADS_BEFORE, KafkaSettings
from eventstore.feed.waking import Stop
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.types import UPLOADS as UPLOADS_LOG
from eventstore.types import Recorded
from eventstore.upkeep import Upkeep
from projections.builds import admin
from tests.api import Registry
from tests.eventstore.uploads import make_older
from tests.feed.running import assert_feed_right, assert_right, fed, published, relaying
from tests.folded import wait_folded
from tests.kafka import Broker
from tests.postgres import Database
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("kafka")

DOCS = Path(__file__).resolve().parents[2] / "docs"
DEADLINE_S = 60.0


def messages(settings: KafkaSettings, topic: str) -> list[Any]:
    """Everything that a topic holds, in order of partition and offset."""
    parts = [TopicPartition(topic, each) for each in range(DEFAULT_PARTITIONS)]
    found: dict[TopicPartition, list[Any]] = {part: [] for part in parts}
    with closing(make_consumer(settings)) as consumer:
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        left = {part: end for part, end in consumer.end_offsets(parts).items() if end > 0}

        def all_found() -> bool:
            for part, some in consumer.poll(timeout_ms=200).items():
                found[part] += some
            return all(len(found[part]) >= end for part, end in left.items())

        eventually(all_found, DEADLINE_S, lambda: (left, {part: len(some) for part, some in found.items()}))
    return [message for part in parts for message in found[part]]


@dataclass(frozen=True)
class Published:
    """An event in a topic: its place there, and the position that its record names as the one before (`prev`)."""

    partition: int
    offset: int
    prev: int
    event: Recorded


def events_of(settings: KafkaSettings, kind: str) -> list[Published]:
    """The events of a topic; watermarks are left out."""
    records = [record_of(each) for each in messages(settings, settings.topic(kind))]
    for each in records:
        assert each.event is None or each.position == each.event.position
    return [Published(each.partition, each.offset, each.prev, each.event) for each in records if each.event is not None]


def is_chatter(event: Recorded) -> bool:
    """True for events of upload sessions, which have a topic of their own."""
    return event.stream.startswith(UPLOAD_PREFIX)


def push(registry: Registry, count: int = 4) -> int:
    """Push to several repositories; answers the head of the log."""
    for number in range(count):
        registry.push(f"u/app{number % 3}", f"t{number}", bytes([number]))
        started = registry.post(f"/v2/u/app{number % 3}/blobs/uploads/")
        traced = {"traceparent": f"00-{number + 1:032x}-00f067aa0ba902b7-01"}
        assert registry.delete(started.headers["Location"], headers=traced).status_code == 204
    return registry.head_position()


def published_uploads(registry: Registry, database: Database) -> list[Recorded]:
    """Wait until the relay has sent all of the log of uploads; answers its events."""
    log = registry.rooms.store.read_log(0, 1000, log=UPLOADS_LOG)
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        query = "SELECT r.position FROM feed.relay AS r WHERE r.log_id = 1"
        eventually(lambda: connection.execute(query).fetchone() == (log[-1].position,), DEADLINE_S, query)
    return log


def test_the_whole_log_is_published_exactly_as_it_stands(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """Every event is there once, in its partition, with the bytes of its data; `prev` chains the events of each."""
    head = push(registry)
    with relaying(database.app_url, kafka):
        published(database.app_url, head)
        head = push(registry, 7)
        published(database.app_url, head)
        uploads = published_uploads(registry, database)
    log = registry.rooms.store.read_log(0, 1000)
    by_kind = {kind: events_of(kafka, kind) for kind in (EVENTS, UPLOADS, UPLOADS_BEFORE)}
    found = {
        kind: sorted((each.event for each in some), key=lambda event: event.position) for kind, some in by_kind.items()
    }
    assert found == {EVENTS: log, UPLOADS: uploads, UPLOADS_BEFORE: []}
    assert {each.stream.split("-")[0] for each in uploads} == {"upload"}
    assert {dict(each.headers)["ce_source"] for each in messages(kafka, kafka.topic(UPLOADS))} == {b"/tagtrail/log/1"}
    for records in by_kind.values():
        last: dict[int, int] = {}
        for each in records:
            assert each.prev == last.get(each.partition, 0)
            assert each.partition == each.event.partition
            last[each.partition] = each.event.position


def test_records_are_cloud_events_whose_data_fit_their_schemas(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """In the binary mode of CloudEvents 1.0 the required attributes are headers, and the data is the value."""
    head = push(registry)
    with relaying(database.app_url, kafka):
        published(database.app_url, head)
    known = schemas()
    found = messages(kafka, kafka.topic(EVENTS))
    log = registry.rooms.store.read_log(0, 1000)
    seen = Counter(dict(each.headers)["ce_type"].decode().removeprefix("tagtrail.") for each in found)
    del seen["Watermark"]
    assert seen == Counter(each.type for each in log if not is_chatter(each))
    for message in found:
        headers = {name: value.decode() for name, value in message.headers}
        assert headers["ce_specversion"] == "1.0"
        assert headers["content-type"] == "application/json"
        assert headers["ce_id"]
        assert headers["ce_source"] == "/tagtrail/log/0"
        if headers["ce_type"] == "tagtrail.Watermark":
            continue
        schema = known[headers["ce_type"].removeprefix("tagtrail.")]
        assert headers["ce_dataschema"] == schema["$id"]
        assert message.key.decode() == headers["ce_partitionkey"]
        data = json.loads(message.value)
        assert set(schema["required"]) <= data.keys() <= schema["properties"].keys()
        types = {"string": str, "integer": int}
        assert all(isinstance(value, types[schema["properties"][name]["type"]]) for name, value in data.items())


def test_the_schemas_in_the_docs_are_those_of_the_code() -> None:
    """`tagtrail events schemas docs/schemas` writes them."""
    made = schemas()
    assert set(made) >= {"TagMoved", "ManifestPushed"}
    files = {file.relative_to(DOCS / "schemas").as_posix(): file for file in (DOCS / "schemas").rglob("*.json")}
    assert set(files) >= {f"{name}/{event_types()[name].SCHEMA_VERSION}.json" for name in made if name in _PRODUCT}
    for name in _PRODUCT:
        file = files[f"{name}/{event_types()[name].SCHEMA_VERSION}.json"]
        assert json.loads(file.read_text()) == made[name]


# Tests of the registry of events declare types of their own.
_PRODUCT = [name for name, cls in event_types().items() if cls.__module__.startswith("domain.")]


def test_two_relays_at_once_leave_nothing_out_and_consumers_see_each_event_once(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both believe that they have the lease; a consumer takes an event that both wrote only once."""
    monkeypatch.setattr(relay, "Membership", lambda *_, **__: _Careless())
    stop = Stop()
    workers = [threading.Thread(target=relay.run, args=(database.app_url, kafka, stop)) for _ in range(2)]
    for each in workers:
        each.start()
    try:
        for _ in range(5):
            head = push(registry, 3)
        published(database.app_url, head)
    finally:
        stop.set()
        for each in workers:
            each.join(DEADLINE_S)
    expected = {each.position for each in registry.rooms.store.read_log(0, 1000) if not is_chatter(each)}
    assert {each.event.position for each in events_of(kafka, EVENTS)} == expected
    assert_feed_right(database.app_url, kafka)
    with fed(database.app_url, kafka):
        wait_folded(database.app_url, head)
    assert_right(database.app_url)


class _Careless:
    """A membership that never loses its lease."""

    held = frozenset({relay.LEASE})

    def start(self) -> "_Careless":
        return self

    def close(self) -> None:
        pass


def test_a_topic_with_another_number_of_partitions_is_refused(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """The status names the topic and says what to do; nothing is published."""
    with closing(make_admin(kafka)) as client:
        client.create_topics([NewTopic(kafka.topic(EVENTS), 3, 1)])
    push(registry, 1)
    with relaying(database.app_url, kafka):
        problem = eventually(lambda: admin.status(database.app_url).relay.problem, DEADLINE_S, "a problem")
    assert admin.status(database.app_url).relay.position == 0
    assert problem is not None
    assert "has 3 partitions, the log has 16" in problem


def test_topics_are_deleted_after_days_and_upload_chatter_sooner(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """Topics are cut by time and never compacted, which would break the chain."""
    from kafka.admin import ConfigResource, ConfigResourceType

    with relaying(database.app_url, kafka):
        published(database.app_url, push(registry, 1))
    names = [kafka.topic(each) for each in (EVENTS, UPLOADS, UPLOADS_BEFORE)]
    with closing(make_admin(kafka)) as client:
        found = {
            each: client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, each)], config_filter="all")
            for each in names
        }
    days = {name: setting(each, "retention.ms") for name, each in found.items()}
    chatter = {kafka.topic(each): str(86_400_000) for each in (UPLOADS, UPLOADS_BEFORE)}
    assert days == {kafka.topic(EVENTS): str(7 * 86_400_000), **chatter}
    assert {setting(each, "cleanup.policy") for each in found.values()} == {"delete"}


def setting(described: Any, name: str) -> Any:
    """The value of a setting in a topic's description, as the client library gives it."""
    if isinstance(described, dict):
        if name in described:
            value = described[name]
            return value["value"] if isinstance(value, dict) else value
        return next((each for each in (setting(value, name) for value in described.values()) if each), None)
    return None


def test_the_example_consumer_of_the_docs_sees_every_move(
    registry: Registry, database: Database, kafka_server: str, tmp_path: Path
) -> None:
    """It is at most 30 lines long and runs as it stands, but for the topic's name."""
    text = (DOCS / "examples" / "follow_tags.py").read_text()
    assert len(text.splitlines()) <= 30
    settings = KafkaSettings(kafka_server, prefix=tmp_path.name)
    script = tmp_path / "follow_tags.py"
    script.write_text(text.replace("tagtrail.events.v1", settings.topic(EVENTS)))
    with relaying(database.app_url, settings):
        published(database.app_url, push(registry, 3))
        process = subprocess.Popen(
            [sys.executable, str(script), kafka_server], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            published(database.app_url, push(registry, 6))
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(9)]
        finally:
            process.kill()
            _, complaints = process.communicate()
    moves = [json.loads(each.data) for each in registry.rooms.store.read_log(0, 1000, types=["TagMoved"])]
    said = {f"{each['repository']}:{each['tag']} -> {each['digest']}" for each in moves}
    assert {line.split(" ", 1)[1].strip() for line in lines} == said
    assert "missed" not in complaints


@pytest.mark.parametrize("how", ["SASL_PLAINTEXT", "SSL"])
def test_logins_and_certificates_are_passed_through(
    registry: Registry, database: Database, broker: Broker, topic_prefix: str, how: str
) -> None:
    """The feed works by a listener that asks for a password, and by one that shows a certificate."""
    settings = broker.settings(topic_prefix, how)
    head = push(registry)
    with fed(database.app_url, settings):
        published(database.app_url, head)
        wait_folded(database.app_url, head)
    assert_right(database.app_url)


def test_a_database_that_went_back_in_time_is_noticed_by_what_kafka_holds(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """The topic's last record is beyond the head of the log, so the epoch is raised before anything is sent."""
    head = push(registry)
    with relaying(database.app_url, kafka):
        published(database.app_url, head)
    epoch = admin.status(database.app_url).epoch
    cut = head - 4
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE log.es_event DISABLE TRIGGER USER")
        connection.execute("DELETE FROM log.es_event WHERE position > %s", (cut,))
        connection.execute("ALTER TABLE log.es_event ENABLE ALWAYS TRIGGER es_event_append_only")
    with relaying(database.app_url, kafka):
        eventually(lambda: admin.status(database.app_url).epoch == epoch + 1, DEADLINE_S, "the epoch raised")
        assert admin.status(database.app_url).relay.position <= cut


def test_sessions_of_an_older_log_go_to_the_topic_of_then(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """A history from before there was a log of uploads is published as it always was; later sessions go elsewhere."""
    with closing(
        Membership(database.app_url, Member("relay", features=HANDLED["relay"] - {UPLOADS_LOG_FEATURE}))
    ) as old:
        old.start()
        eventually(lambda: old.refusal is None, DEADLINE_S, "the older relay is registered")
        push(registry)
    before = registry.rooms.store.read_log(0, 1000)
    assert any(is_chatter(each) for each in before)
    eventually(lambda: push(registry, 1) and registry.rooms.store.head(UPLOADS_LOG) > 0, DEADLINE_S, "the new way")
    with relaying(database.app_url, kafka):
        published(database.app_url, registry.head_position())
        uploads = published_uploads(registry, database)
    log = registry.rooms.store.read_log(0, 1000)
    expected = {EVENTS: [each for each in log if not is_chatter(each)], UPLOADS: uploads}
    expected[UPLOADS_BEFORE] = [each for each in log if is_chatter(each)]
    assert {each.position for each in expected[UPLOADS_BEFORE]} >= {
        each.position for each in before if is_chatter(each)
    }
    for kind, events in expected.items():
        assert sorted((each.event for each in events_of(kafka, kind)), key=lambda event: event.position) == events


def drop_uploads(database: Database) -> None:
    """Drop all that the log of uploads holds, as if it had become old enough."""
    make_older(database, timedelta(days=9))
    with closing(Upkeep(database.app_url, lambda: datetime.now(UTC))) as upkeep:
        upkeep.begin_upload_part(timedelta(days=7))
        assert upkeep.drop_upload_part(timedelta(days=7), timedelta(days=1)).removed == 1


def test_an_upload_log_whose_oldest_events_are_gone_is_not_taken_for_a_restored_one(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """Kafka may still hold what the log has dropped."""
    push(registry)
    with relaying(database.app_url, kafka):
        published_uploads(registry, database)
    epoch = admin.status(database.app_url).epoch
    drop_uploads(database)
    assert registry.rooms.store.read_log(0, 10, log=UPLOADS_LOG) == []
    with relaying(database.app_url, kafka):
        push(registry, 1)
        published_uploads(registry, database)
    assert admin.status(database.app_url).epoch == epoch


def test_a_part_that_goes_while_the_relay_begins_is_no_sign_of_a_restore(
    registry: Registry, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka was asked before the part went, the log afterwards."""
    push(registry)
    with relaying(database.app_url, kafka):
        published_uploads(registry, database)
    epoch = admin.status(database.app_url).epoch

    def asked_before_the_drop(settings: KafkaSettings, topic: str, partitions: int) -> list[FeedRecord]:
        found = list(last_records(settings, topic, partitions))
        if found and topic == kafka.topic(UPLOADS) and registry.rooms.store.read_log(0, 1, log=UPLOADS_LOG):
            drop_uploads(database)
        return found

    monkeypatch.setattr("eventstore.feed.relay.last_records", asked_before_the_drop)
    with relaying(database.app_url, kafka):
        eventually(lambda: registry.rooms.store.read_log(0, 1, log=UPLOADS_LOG) == [], DEADLINE_S, str)
        push(registry, 1)
        published_uploads(registry, database)
    assert admin.status(database.app_url).epoch == epoch


def test_a_reader_goes_on_where_it_was_and_begins_anew_in_another_topic(
    registry: Registry, database: Database, kafka: KafkaSettings
) -> None:
    """Offsets count only in the topic in which they were seen."""
    head = push(registry)
    with relaying(database.app_url, kafka):
        published(database.app_url, head)
        with closing(make_admin(kafka)) as client:
            topic_id = topics.describe(client, [kafka.topic(EVENTS)])[kafka.topic(EVENTS)][0]
        partition = events_of(kafka, EVENTS)[0].partition
        offsets = [each.offset for each in events_of(kafka, EVENTS) if each.partition == partition]
        for place, first in (
            (Place(topic_id, offsets[-1]), offsets[-1]),
            (Place("another", offsets[-1]), 0),
            (Place(topic_id, 10_000), 0),
            (Place(), 0),
        ):
            with closing(FeedReader(kafka).start()) as reader:
                reader.assign({partition: place})
                batch = reader.get(DEADLINE_S)
            assert batch is not None
            assert batch.topic_id == topic_id
            assert batch.records[partition][0].offset == first
