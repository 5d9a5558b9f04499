"""Settings of Kafka, in a module of their own because its clients take a while to load."""

from dataclasses import dataclass
from typing import Any

# Kinds of topics, and the versions of what they hold. Sessions were in the history when UPLOADS_BEFORE was the topic of
# theirs: nothing is added to it but what such a log has (rule: two logs).
EVENTS = "events.v1"
UPLOADS = "uploads.v2"
UPLOADS_BEFORE = "uploads.v1"
TOPICS = (EVENTS, UPLOADS_BEFORE, UPLOADS)

# Short, so that a lost broker is noticed and a returned one is found soon.
_COMMON: dict[str, Any] = {
    "request_timeout_ms": 5_000,
    "bootstrap_timeout_ms": 5_000,
    "reconnect_backoff_max_ms": 1_000,
    "metadata_max_age_ms": 10_000,
    "connections_max_idle_ms": 60_000,
}


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Addresses and credentials of Kafka. `servers` is HOST:PORT,…; files are PEM; `prefix` begins topic names.

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
        """The topic of one of TOPICS."""
        return f"{self.prefix}.{kind}"

    @property
    def options(self) -> dict[str, Any]:
        """The settings that every client of kafka-python gets."""
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
