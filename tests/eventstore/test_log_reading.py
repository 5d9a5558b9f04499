"""Reading: streams, the log with its filters, moments, waiting; and forgetting what may be forgotten."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from eventstore.partition import DEFAULT_PARTITIONS, partition_of
from eventstore.store import Store
from eventstore.types import Content
from tests.eventstore.making import command, event
from tests.postgres import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAR = timedelta(days=365)


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store with ten events of two keys and two types; every third one names content."""
    made = Store(database.app_url)
    made.put_content(Content("digest", b"body", '{"fact": 1}'))
    for number in range(10):
        content = "digest" if number % 3 == 0 else None
        given = event(
            f"s{number % 2}", key=f"k{number % 2}", kind="Even" if number % 4 == 0 else "Odd", content=content
        )
        made.append(command(given, now=NOW + timedelta(minutes=number), address="192.0.2.1"))
    yield made
    made.close()


def test_a_stream_is_read_in_order_of_versions(store: Store) -> None:
    """After a version, up to a limit."""
    assert [(each.version, each.position) for each in store.read_stream("s1", 1, 3)] == [(2, 4), (3, 6), (4, 8)]
    assert store.read_stream("none") == []


def test_the_log_is_read_after_a_position_with_filters(store: Store) -> None:
    """Each filter alone and all together; the order is the log's."""

    def positions(**filters: Any) -> list[int]:
        return [each.position for each in store.read_log(1, 4, **filters)]

    assert positions() == [2, 3, 4, 5]
    assert positions(key="k0") == [3, 5, 7, 9]
    assert positions(types=["Even"]) == [5, 9]
    assert positions(types=[]) == []
    assert positions(partitions=[partition_of("k1", DEFAULT_PARTITIONS)]) == [2, 4, 6, 8]
    assert positions(types=["Even"], key="k1", partitions=range(16)) == []
    assert {each.partition for each in store.read_log(0, 100, key="k1")} == {partition_of("k1", DEFAULT_PARTITIONS)}


def test_facts_come_with_the_events_that_name_content(store: Store) -> None:
    """Exactly as stored; nothing for others, and nothing unasked."""
    facts = [each.facts for each in store.read_log(0, 4, with_facts=True)]
    assert facts == ['{"fact": 1}', None, None, '{"fact": 1}']
    assert store.read_log(0, 1)[0].facts is None


def test_a_moment_is_a_position(store: Store, database: Database) -> None:
    """The last one recorded at or before it: what upkeep removes up to a moment is found by that."""
    moments = [NOW - FAR, NOW, NOW + timedelta(seconds=59), NOW + timedelta(minutes=3), NOW + FAR]
    with psycopg.connect(database.app_url) as connection:
        found = [
            connection.execute("SELECT log.es_position_at(0::smallint, %s)", (each,)).fetchone() for each in moments
        ]
    assert found == [(0,), (1,), (1,), (4,), (10,)]


def test_idle_streams_are_those_with_the_ref_and_no_event_since(store: Store) -> None:
    """Longest idle first; a later event takes a stream out."""
    start = NOW + timedelta(hours=1)
    for number, name in enumerate(("u2", "u1", "u3")):
        store.append(command(event(name, ref="open"), now=start + timedelta(minutes=number)))
    store.append(command(event("u1"), now=start + timedelta(minutes=30)))
    store.append(command(event("u3", ref="closed"), now=start + timedelta(minutes=31)))
    late = start + timedelta(minutes=32)
    assert [each.stream for each in store.idle_streams("open", late, 10)] == ["u2", "u1"]
    assert [each.stream for each in store.idle_streams("open", late, 1)] == ["u2"]
    assert [each.stream for each in store.idle_streams("open", start + timedelta(minutes=20), 10)] == ["u2"]


def test_who_refers_to_a_target_is_known_and_replaced(store: Store) -> None:
    """The references of a stream's last event that names any are those that count."""
    store.append(command(event("m1", refers_to=("x", "y", "x")), event("m2", refers_to=("x",))))
    store.append(command(event("m1", refers_to=("z",)), event("m2")))
    assert [store.referring_streams(target, 10) for target in "xyz"] == [["m2"], [], ["m1"]]
    store.append(command(event("m2", refers_to=())))
    assert store.referring_streams("x", 10) == []


def test_the_log_tells_its_partitions_epoch_and_schema(store: Store) -> None:
    """Partitions, epoch, schema, and whether the database takes writes."""
    info = store.log_info()
    assert (info.partitions, info.epoch, info.read_only) == (16, 1, False)
