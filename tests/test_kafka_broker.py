"""The broker that tests drive: each of its listeners works, a kill loses nothing, and a wipe makes another cluster."""

import secrets
import time
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from tests.kafka import Broker

pytestmark = pytest.mark.xdist_group("kafka")

DEADLINE_S = 20.0


def test_every_listener_takes_and_gives_a_record(broker: Broker, topic_prefix: str) -> None:
    """The listeners are one without a login, one with a password, and one whose certificate is checked."""
    for how in ("PLAINTEXT", "SASL_PLAINTEXT", "SSL"):
        options = broker.settings(topic_prefix, how).options
        topic = make_topic(options, f"{topic_prefix}.{how}")
        send(options, topic, how.encode())
        assert read(options, topic) == [how.encode()]


def test_a_kill_keeps_the_record_and_a_wipe_changes_the_cluster(broker: Broker, topic_prefix: str) -> None:
    """The broker keeps its ports all the time."""
    options = broker.settings(topic_prefix).options
    bootstrap, first = broker.bootstrap, broker.cluster_id()
    topic = make_topic(options, topic_prefix)
    send(options, topic, b"kept")
    broker.kill()
    broker.restart()
    assert (broker.bootstrap, broker.cluster_id()) == (bootstrap, first)
    assert read(options, topic) == [b"kept"]
    broker.stop()
    broker.wipe()
    broker.start()
    assert broker.bootstrap == bootstrap
    assert broker.cluster_id() != first
    assert topic not in topics(options)


def test_a_cluster_id_may_begin_with_a_dash(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One random id in 64 does."""
    cluster = "-" + secrets.token_urlsafe(16)[1:]
    broker.stop()
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _: cluster)
    broker.wipe()
    broker.start()
    assert broker.cluster_id() == cluster


def make_topic(options: dict[str, Any], topic: str) -> str:
    """A topic of one partition; answers its name."""
    client = KafkaAdminClient(**options)
    try:
        client.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        client.close()
    return topic


def topics(options: dict[str, Any]) -> list[str]:
    """The names of all topics."""
    client = KafkaAdminClient(**options)
    try:
        return [str(each) for each in client.list_topics()]
    finally:
        client.close()


def send(options: dict[str, Any], topic: str, value: bytes) -> None:
    """Send one record and wait until it is taken."""
    producer = KafkaProducer(**options, acks="all")
    try:
        producer.send(topic, value, partition=0).get(DEADLINE_S)
    finally:
        producer.close()


def read(options: dict[str, Any], topic: str) -> list[bytes]:
    """The values of a topic, up to its end as it is now."""
    part = TopicPartition(topic, 0)
    consumer = KafkaConsumer(**options, enable_auto_commit=False)
    try:
        consumer.assign([part])
        consumer.seek_to_beginning(part)
        end, found = consumer.end_offsets([part])[part], []
        deadline = time.monotonic() + DEADLINE_S
        while consumer.position(part) < end and time.monotonic() < deadline:
            found += [record.value for each in consumer.poll(timeout_ms=500).values() for record in each]
        return found
    finally:
        consumer.close()
