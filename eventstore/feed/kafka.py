"""How Kafka is reached, and its clients as this program uses them.

kafka-python is driven without group management: `assign()` and leases of our own (docs/decisions/0004-kafka-client.md).
"""

from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

EVENTS = "events"
UPLOADS = "uploads"

# Short, so that a broker that went away is noticed and one that came back is found.
_COMMON: dict[str, Any] = {
    "request_timeout_ms": 5_000,
    "bootstrap_timeout_ms": 5_000,
    "reconnect_backoff_max_ms": 1_000,
    "metadata_max_age_ms": 10_000,
    "connections_max_idle_ms": 60_000,
}


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where Kafka is and how one logs in. `servers` is HOST:PORT,…; files are PEM; `prefix` begins topic names.

    `replication` is the number of copies of topics that are made here, -1 for the broker's default.
    """

    servers: str
    security_protocol: str = "PLAINTEXT"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = None
    prefix: str = "tagtrail"
    replication: int = -1

    def topic(self, kind: str) -> str:
        """The topic of EVENTS or UPLOADS."""
        return f"{self.prefix}.{kind}.v1"

    @property
    def options(self) -> dict[str, Any]:
        """What every client of kafka-python is given."""
        return {
            **_COMMON,
            "bootstrap_servers": [each.strip() for each in self.servers.split(",")],
            "security_protocol": self.security_protocol,
            "ssl_cafile": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }


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
        delivery_timeout_ms=10_000,
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
        max_poll_records=1_000,
        metrics_enabled=False,
    )
