"""Clients of Kafka as this program uses them.

kafka-python is driven without group management: `assign()` and leases of our own (docs/decisions/0004-kafka-client.md).
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.net.compat import KafkaNetClient

from eventstore.feed.settings import KafkaSettings

T = TypeVar("T")


def make_admin(settings: KafkaSettings) -> KafkaAdminClient:
    """A client for topics. Raises KafkaError if no broker answers."""
    return _connected(KafkaAdminClient, settings)


def make_producer(settings: KafkaSettings) -> KafkaProducer:
    """A producer that repeats nothing and loses nothing that it acknowledged.

    Both settings are given, because with acks other than "all" idempotence would be off without a word.
    """
    return _connected(
        KafkaProducer,
        settings,
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        batch_size=64 * 1024,
        delivery_timeout_ms=6_000,
        max_block_ms=5_000,
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )


def make_consumer(settings: KafkaSettings) -> KafkaConsumer:
    """A consumer of assigned partitions. A lost offset is an error; by default it would be moved in silence."""
    return _connected(
        KafkaConsumer,
        settings,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        allow_auto_create_topics=False,
        fetch_max_wait_ms=200,
        # An event has a few kilobytes; this bounds how many are in memory.
        max_poll_records=1_000,
        fetch_max_bytes=4 * 1024 * 1024,
        max_partition_fetch_bytes=1024 * 1024,
        metrics_enabled=False,
    )


def _connected(kind: Callable[..., T], settings: KafkaSettings, **options: object) -> T:
    """A client that has found a broker. Raises KafkaError, and closes what was opened.

    A constructor of kafka-python that finds none leaves its thread running and its sockets open, and nobody has the
    client to close it. While Kafka is away, each try would cost a thread and three descriptors.
    """
    with ExitStack() as opened:

        def open_client(**given: Any) -> KafkaNetClient:
            client = KafkaNetClient(**given)
            opened.callback(client.close)
            return client

        made = kind(**settings.options, **options, kafka_client=open_client)
        # From here on it closes its client itself.
        opened.pop_all()
        return made
