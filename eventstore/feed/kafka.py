"""How Kafka is reached, and its clients as this program uses them.

kafka-python is driven without group management: `assign()` and leases of our own (docs/decisions/0004-kafka-client.md).
"""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from eventstore.feed.settings import KafkaSettings


def make_admin(settings: KafkaSettings) -> KafkaAdminClient:
    """A client for topics. Raises KafkaError if no broker answers."""
    return KafkaAdminClient(**settings.options)


def make_producer(settings: KafkaSettings) -> KafkaProducer:
    """A producer that repeats nothing and loses nothing that it acknowledged.

    Both are said, not left to defaults: acks other than "all" would turn idempotence off in silence.
    """
    return KafkaProducer(
        **settings.options,
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
    """A consumer of assigned partitions; an offset that is gone raises instead of being moved in silence."""
    return KafkaConsumer(
        **settings.options,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        allow_auto_create_topics=False,
        fetch_max_wait_ms=200,
        # An event has at most some kilobytes; so much of them is in memory at a time.
        max_poll_records=1_000,
        fetch_max_bytes=4 * 1024 * 1024,
        max_partition_fetch_bytes=1024 * 1024,
        metrics_enabled=False,
    )
