"""Makes missing topics, refuses those that do not fit, and recognises topics by their ids."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from eventstore.feed.settings import EVENTS, TOPICS, UPLOADS, UPLOADS_BEFORE, KafkaSettings

_DAY_MS = 86_400_000
_CONFIGURATION = {
    EVENTS: {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)},
    UPLOADS: {"cleanup.policy": "delete", "retention.ms": str(_DAY_MS)},
    UPLOADS_BEFORE: {"cleanup.policy": "delete", "retention.ms": str(_DAY_MS)},
}
_MADE_TIMEOUT_S = 10.0


class WrongTopic(Exception):
    """A topic cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The cluster and the ids of the topics, by kind. A topic that was deleted and made again has another id."""

    cluster_id: str
    ids: Mapping[str, str]


def ensure(admin: KafkaAdminClient, settings: KafkaSettings, partitions: int) -> Topics:
    """Make missing topics and answer all.

    Raises WrongTopic for a topic with another number of partitions, where a key's events would not stay in order.
    """
    names = {settings.topic(kind): kind for kind in TOPICS}
    deadline = time.monotonic() + _MADE_TIMEOUT_S
    while True:
        found = describe(admin, list(names))
        missing = [name for name in names if name not in found]
        if not missing:
            break
        if time.monotonic() > deadline:
            raise WrongTopic(f"topics {', '.join(missing)} could not be made")
        _make(admin, [(name, _CONFIGURATION[names[name]]) for name in missing], settings.replication, partitions)
        time.sleep(0.1)
    for name, (_, count) in found.items():
        if count != partitions:
            raise WrongTopic(
                f"topic {name} has {count} partitions, the log has {partitions}: remove the topic, or name another "
                "prefix; what it held is published again"
            )
    return Topics(cluster_id(admin), {kind: found[name][0] for name, kind in names.items()})


def cluster_id(admin: KafkaAdminClient) -> str:
    """The id of the cluster."""
    return str(admin.describe_cluster()["cluster_id"])


def describe(admin: KafkaAdminClient, names: list[str]) -> dict[str, tuple[str, int]]:
    """Id and number of partitions of the topics that exist and have leaders."""
    found = {}
    for each in admin.describe_topics(names):
        led = [part for part in each["partitions"] if part.get("error_code", 0) == 0 and part["leader_id"] >= 0]
        if each["error_code"] == 0 and len(led) == len(each["partitions"]):
            found[each["name"]] = (str(each["topic_id"]), len(led))
    return found


def _make(admin: KafkaAdminClient, wanted: list[tuple[str, dict[str, str]]], replication: int, partitions: int) -> None:
    for name, configuration in wanted:
        try:
            admin.create_topics(
                [NewTopic(name, partitions, replication, topic_configs=configuration)], timeout_ms=5_000
            )
        except TopicAlreadyExistsError:
            continue  # another relay made it, or it exists and has no leader yet
