"""Builds of one projector take turns, and an idle projector wakes up. These tests need no Kafka."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from eventstore.feed.bell import Bell
from eventstore.feed.members import Member, Membership
from eventstore.feed.settings import KafkaSettings
from eventstore.feed.waking import Stop
from eventstore.partition import DEFAULT_PARTITIONS
from projections.engine import checkpoints, kafka_feed
from projections.engine.build_tables import Build
from projections.engine.kafka_feed import CATCH_UP_S, STALLED_S, KafkaFeed, lease_name
from projections.engine.setup import engine_for
from projections.models import blob_references, tags
from tests.api import Registry
from tests.postgres import Database

MODELS = (blob_references.model, tags.model)
# The seconds that a transaction takes here, so that a build has four of them in a turn.
STEP_S = CATCH_UP_S / 3.5
STEPS = 4
JOIN_MAX_S = 60.0
FOR_EVER_S = 180.0


class Leases(Membership):
    """A process that has the leases that the test gives it; it never renews them."""

    given = frozenset(lease_name(each, partition) for each in MODELS for partition in range(DEFAULT_PARTITIONS))

    @property
    def held(self) -> frozenset[str]:
        return self.given


class Clock:
    """The projector's time, which passes as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def members(database: Database) -> Leases:
    """The leases."""
    return Leases(database.app_url, Member("projector"))


@pytest.fixture
def feed(database: Database, members: Leases) -> Iterator[KafkaFeed]:
    """A projector that takes one event in a transaction."""
    with engine_for(database.app_url).connect() as connection:
        yield KafkaFeed(connection, MODELS, KafkaSettings("127.0.0.1:1"), members, 1)


def test_each_build_that_is_behind_has_a_turn_of_its_own_until_it_is_level(
    registry: Registry, feed: KafkaFeed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While Kafka brings nothing, the first build does not use up the time of the others, and no look is lost."""
    for number in range(30):
        registry.push(f"u/app{number}", "t", bytes([number]))
    clock, steps, folding = Clock(), Counter[str](), checkpoints.apply

    def applied(connection: sa.Connection, build: Build, *arguments: Any, **options: Any) -> None:
        clock.now += STEP_S
        steps[build.model.name] += 1
        folding(connection, build, *arguments, **options)

    monkeypatch.setattr(kafka_feed, "time", clock)
    monkeypatch.setattr(kafka_feed, "apply", applied)
    stop = threading.Event()
    feed._share()
    feed._feed_stalled(stop)
    clock.now += STALLED_S + 0.1
    for turn in (1, 2, 3):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger=kafka_feed.__name__):
            feed._feed_stalled(stop)
        assert steps == {each.name: turn * STEPS for each in MODELS}
        assert [each.getMessage() for each in caplog.records] == [
            f"the feed of {build.id} is behind: {STEPS} events were read from the store" for build in feed._builds
        ]


def test_a_turn_ends_when_the_projector_is_stopped(registry: Registry, feed: KafkaFeed) -> None:
    """It ends after the transaction that is under way, though the build is still behind."""
    registry.push("u/app", "t")
    registry.push("u/app", "t2")
    feed._share()
    stop = threading.Event()
    stop.set()
    build = feed._builds[0]
    feed._bring_along(build, range(DEFAULT_PARTITIONS), stop)
    assert feed._catch_up(build, range(DEFAULT_PARTITIONS), isolate=False)[0] == 1


def test_a_change_of_leases_ends_the_rest_of_a_projector(
    registry: Registry, feed: KafkaFeed, members: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new partitions are fed at once, though nothing is appended."""
    monkeypatch.setattr(Bell.wait, "__defaults__", (FOR_EVER_S,))
    feed._share()
    stop = Stop()
    feed._rest(stop)  # it begins to listen
    resting = threading.Thread(target=feed._rest, args=(stop,))
    resting.start()
    try:
        members.given = frozenset()
        members._changed()
        resting.join(JOIN_MAX_S)
        assert not resting.is_alive()
    finally:
        stop.set()
        resting.join(JOIN_MAX_S)
