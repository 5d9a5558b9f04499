"""Reading the feed: assigned partitions, from offsets that are ours, in a thread that Kafka may block as it likes."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from eventstore.feed import topics
from eventstore.feed.kafka import make_admin, make_consumer
from eventstore.feed.metrics import FEED_FAILURES
from eventstore.feed.records import FeedRecord, NotOurs, record_of
from eventstore.feed.settings import EVENTS, KafkaSettings

POLL_S = 0.2
# While the reader's user rests, Kafka is asked so often. New partitions are asked for without a rest for a while at
# first, or the client would still have to learn where they are when the first events come.
RESTING_S = 15.0
WARM_S = 5.0
# The identity of the topic is asked for so often, and so often while the reader's user rests. Each question takes a
# connection of its own.
IDENTITY_S = 5.0
IDENTITY_RESTING_S = 30.0
# After a rest it is not asked sooner than this, because the events that woke the reader must not wait for the answer.
IDENTITY_WAKING_S = 1.0
RETRY_S = 0.2
RETRY_MAX_S = 2.0
BATCHES_MAX = 8
CLOSE_S = 1.0
_LAST_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records by partition, in the order of the topic, and the topic's id."""

    topic_id: str
    records: Mapping[int, list[FeedRecord]]


@dataclass(frozen=True, slots=True)
class Place:
    """The place to read on from: `next_offset` in the topic of this id, the beginning in any other topic."""

    topic_id: str | None = None
    next_offset: int | None = None


class FeedEnded(Exception):
    """The feed cannot be read any more by this process, for a reason that nobody thought of."""


class FeedReader:
    """The records of some partitions, in batches; silent while Kafka is away, and then goes on by itself.

    The caller must not believe that nothing is missing: a topic may come back empty, or cut.
    """

    def __init__(self, settings: KafkaSettings, arrived: Callable[[], None] = lambda: None) -> None:
        """`arrived` is called by another thread when a batch is there, or none will come any more."""
        self._settings = settings
        self._arrived = arrived
        self._topic = settings.topic(EVENTS)
        self._batches: queue.Queue[Batch] = queue.Queue(BATCHES_MAX)
        self._wanted: dict[int, Place] = {}
        self._places: dict[int, Place] = {}
        self._changed = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._stop = threading.Event()
        self._topic_id = ""
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> "FeedReader":
        """Begin to read the assigned partitions."""
        self._thread.start()
        return self

    def assign(self, wanted: Mapping[int, Place]) -> None:
        """Read these partitions from now on, new ones from their places."""
        self._wanted = dict(wanted)
        self._changed.set()
        self._awake.set()

    def rest(self) -> None:
        """Ask Kafka seldom until `wake`, for somebody else tells when there is something."""
        self._awake.clear()

    def wake(self) -> None:
        """Ask Kafka all the time again."""
        self._awake.set()

    def get(self, timeout_s: float) -> Batch | None:
        """The next batch, None if there is none in time. Raises FeedEnded if reading has failed for good."""
        if self._failure is not None:
            raise FeedEnded(f"reading the feed failed: {self._failure!r}") from self._failure
        try:
            return self._batches.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def waiting(self) -> bool:
        """True if a batch is there already."""
        return not self._batches.empty()

    def close(self) -> None:
        """Stop reading. A try to reach Kafka that is under way is not waited for: it changes nothing."""
        self._stop.set()
        self._awake.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._read_until_stopped()
        except Exception as problem:
            # The next call for a batch raises it: a thread that is silently gone would look like a quiet feed.
            self._failure = problem
            self._arrived()
            raise

    def _read_until_stopped(self) -> None:
        retry_s = RETRY_S
        while not self._stop.is_set():
            if not self._wanted:
                self._changed.wait(POLL_S)
                # Cleared here, or the next wait would end at once. Only afterwards does the reader look at the wishes.
                self._changed.clear()
                continue
            began = time.monotonic()
            try:
                self._topic_id = self._identify()
                consumer = make_consumer(self._settings)
                try:
                    self._changed.set()
                    self._read(consumer)
                finally:
                    consumer.close()
                retry_s = RETRY_S
            except (KafkaError, OSError, topics.WrongTopic) as problem:
                FEED_FAILURES.inc()
                if time.monotonic() - began > 10 * RETRY_MAX_S:
                    retry_s = RETRY_S
                _log.warning("Kafka is away, trying again in %.1f s: %s: %s", retry_s, type(problem).__name__, problem)
                self._stop.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)

    def _identify(self) -> str:
        admin = make_admin(self._settings)
        try:
            found = topics.describe(admin, [self._topic])
        finally:
            admin.close()
        if self._topic not in found:
            raise topics.WrongTopic(f"topic {self._topic} is not there (yet): the relay makes it")
        return found[self._topic][0]

    def _read(self, consumer: KafkaConsumer) -> None:
        identify_at = time.monotonic() + IDENTITY_S
        rest_from = 0.0
        while not self._stop.is_set() and self._wanted:
            if self._changed.is_set():
                self._changed.clear()
                self._assign(consumer)
                rest_from = time.monotonic() + WARM_S
            rests = time.monotonic() > rest_from and not self._awake.is_set()
            if rests and self._awake.wait(RESTING_S):
                # Put off by a little only: a reader that is woken again and again must come to ask too.
                identify_at = max(identify_at, time.monotonic() + IDENTITY_WAKING_S)
            try:
                polled = consumer.poll(timeout_ms=int(POLL_S * 1000))
            except (OffsetOutOfRangeError, NoOffsetForPartitionError) as problem:
                self._begin_again(consumer, problem)
                continue
            if polled:
                self._put({part.partition: messages for part, messages in polled.items()})
            if time.monotonic() > identify_at:
                identify_at = time.monotonic() + (IDENTITY_S if self._awake.is_set() else IDENTITY_RESTING_S)
                if self._identify() != self._topic_id:
                    _log.error("topic %s was made anew: reading it from its beginning", self._topic)
                    self._places.clear()
                    return

    def _assign(self, consumer: KafkaConsumer) -> None:
        wanted = dict(self._wanted)
        self._places = {each: self._places.get(each, place) for each, place in wanted.items()}
        parts = {each: TopicPartition(self._topic, each) for each in wanted}
        consumer.assign(list(parts.values()))
        if not parts:
            return
        first, end = (ask(list(parts.values())) for ask in (consumer.beginning_offsets, consumer.end_offsets))
        for partition, part in parts.items():
            place = self._places[partition]
            offset = place.next_offset if place.topic_id == self._topic_id else None
            if offset is None or not first[part] <= offset <= end[part]:
                if offset is not None:
                    _log.error(
                        "partition %d goes on at offset %d, but the topic has %d to %d: reading from its beginning",
                        *(partition, offset, first[part], end[part]),
                    )
                offset = first[part]
            consumer.seek(part, offset)
            self._places[partition] = Place(self._topic_id, offset)

    def _begin_again(self, consumer: KafkaConsumer, problem: KafkaError) -> None:
        _log.error("offsets are gone (%s): reading on from the beginning of what is there", problem)
        parts = [TopicPartition(self._topic, each) for each in self._places]
        for part, offset in consumer.beginning_offsets(parts).items():
            consumer.seek(part, offset)

    def _put(self, polled: Mapping[int, list[object]]) -> None:
        records: dict[int, list[FeedRecord]] = {}
        for partition, messages in polled.items():
            for message in messages:
                try:
                    records.setdefault(partition, []).append(record_of(message))
                except NotOurs as problem:
                    _log.error("a record that no relay wrote is left out: %s", problem)
            if records.get(partition):
                self._places[partition] = Place(self._topic_id, records[partition][-1].offset + 1)
        batch = Batch(self._topic_id, records)
        while not self._stop.is_set():
            try:
                self._batches.put(batch, timeout=POLL_S)
                self._arrived()
                return
            except queue.Full:
                continue


def last_records(settings: KafkaSettings, topic: str, partitions: int) -> list[FeedRecord]:
    """The last record of each partition of a topic that has any. Raises KafkaError."""
    consumer = make_consumer(settings)
    try:
        parts = [TopicPartition(topic, each) for each in range(partitions)]
        consumer.assign(parts)
        first, end = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        waiting = {part for part in parts if end[part] > first[part]}
        for part in parts:
            consumer.seek(part, max(first[part], end[part] - 1))
        found: list[FeedRecord] = []
        deadline = time.monotonic() + _LAST_TIMEOUT_S
        while waiting and time.monotonic() < deadline:
            for part, messages in consumer.poll(timeout_ms=200).items():
                waiting.discard(part)
                try:
                    found.append(record_of(messages[-1]))
                except NotOurs as problem:
                    _log.error("a record that no relay wrote: %s", problem)
        return found
    finally:
        consumer.close()
