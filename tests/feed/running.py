"""Runs relays and projectors in the test's process, beside the registry that runs there too."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from domain.streams import UPLOAD_PREFIX
from eventstore.feed import relay
from eventstore.feed.chain import follow
from eventstore.feed.consumer import FeedReader, Place
from eventstore.feed.settings import KafkaSettings
from eventstore.feed.waking import Stop
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.store import Store
from eventstore.types import Recorded
from projections.all_models import MODELS
from projections.builds import admin
from projections.builds.verify import verify
from projections.model import Model
from projections.projector import project
from tests.waiting import eventually

STOP_TIMEOUT_S = 30.0
PUBLISHED_TIMEOUT_S = 60.0


@contextmanager
def thread(target: Any, *arguments: Any, **options: Any) -> Iterator[Stop]:
    """Run `target(*arguments, stop)` beside the test; what it raises ends the test."""
    stop = Stop()
    problems: list[BaseException] = []

    def run() -> None:
        try:
            target(*arguments, stop, **options)
        except BaseException as problem:
            problems.append(problem)
            raise

    made = threading.Thread(target=run)
    made.start()
    try:
        yield stop
    finally:
        stop.set()
        made.join(STOP_TIMEOUT_S)
        assert not made.is_alive()
        assert problems == []


def relaying(database_url: str, settings: KafkaSettings) -> Any:
    """Run a relay during the block."""

    def run(stop: Stop) -> None:
        relay.run(database_url, settings, stop)

    return thread(run)


def projecting(database_url: str, settings: KafkaSettings | None = None, models: Sequence[Model] = MODELS) -> Any:
    """Run a projector during the block; Kafka feeds it if there are settings, otherwise the log."""

    def run(stop: Stop) -> None:
        project(database_url, stop, models=models, kafka=settings)

    return thread(run)


@contextmanager
def fed(database_url: str, settings: KafkaSettings, *, relays: int = 1, projectors: int = 1) -> Iterator[None]:
    """Run so many relays and projectors at once during the block."""
    with ExitStack() as stack:
        for _ in range(relays):
            stack.enter_context(relaying(database_url, settings))
        for _ in range(projectors):
            stack.enter_context(projecting(database_url, settings))
        yield


def published(database_url: str, position: int) -> None:
    """Wait until the relay has sent everything up to a position."""
    eventually(
        lambda: admin.status(database_url).relay.position >= position,
        PUBLISHED_TIMEOUT_S,
        lambda: admin.status(database_url).relay,
    )


def assert_right(database_url: str) -> None:
    """Check that every read model equals a fold from nothing."""
    differing = [(each.name, each.samples) for each in verify(database_url) if not each.equal]
    assert differing == []


def fresh_sequence(database_url: str, settings: KafkaSettings, timeout_s: float = 30.0) -> list[Recorded]:
    """The events that a new consumer gets of all partitions, in order of the log; the store fills holes."""
    store = Store(database_url, pool_size=2)
    head, epoch = store.head(), store.log_info().epoch
    reader = FeedReader(settings).start()
    reader.assign(dict.fromkeys(range(DEFAULT_PARTITIONS), Place()))
    last = dict.fromkeys(range(DEFAULT_PARTITIONS), 0)
    found: list[Recorded] = []

    def events(partition: int, after: int, upto: int) -> list[Recorded]:
        read = store.read_log(after, 100_000, partitions=[partition])
        return [each for each in read if each.position <= upto and not each.stream.startswith(UPLOAD_PREFIX)]

    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline and any(events(each, at, head) for each, at in last.items()):
            batch = reader.get(1.0)
            for partition, records in batch.records.items() if batch else ():

                def read_store(after: int, upto: int, partition: int = partition) -> tuple[list[Recorded], int]:
                    return events(partition, after, upto), upto

                run = follow(last[partition], records, epoch, head, read_store)
                found += run.events
                last[partition] = run.position
    finally:
        reader.close()
        store.close()
    return sorted(found, key=lambda event: event.position)


def assert_feed_right(database_url: str, settings: KafkaSettings) -> None:
    """Check that a new consumer gets the whole log, except for events of upload sessions."""
    with closing(Store(database_url, pool_size=1)) as store:
        log = store.read_log(0, 1_000_000)
    expected = [each.position for each in log if not each.stream.startswith(UPLOAD_PREFIX)]
    assert [each.position for each in fresh_sequence(database_url, settings)] == expected
