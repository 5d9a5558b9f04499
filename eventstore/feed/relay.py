"""The relay: carries both logs from the store to Kafka, each in order, and remembers how far it got.

One relay is active, by a lease. Its checkpoint of a log moves by compare-and-set once Kafka has acknowledged. After a
failure in between, the same records are published again, and consumers skip them. So a relay that was replaced without
knowing it does no harm. Transactions of Kafka are not needed, because all results of records end in Postgres.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from domain.features import HANDLED
from eventstore.connection import connect
from eventstore.feed import topics
from eventstore.feed.bell import QUIET_S, Bell
from eventstore.feed.consumer import last_records
from eventstore.feed.followed import KINDS, Followed, Replaced
from eventstore.feed.kafka import make_admin, make_producer
from eventstore.feed.members import Member, Membership, only
from eventstore.feed.metrics import RELAY_FAILURES, RELAYED
from eventstore.feed.records import FeedRecord, Outgoing, outgoing, watermark
from eventstore.feed.settings import EVENTS, TOPICS, KafkaSettings
from eventstore.feed.topics import Topics, WrongTopic
from eventstore.feed.waking import Stop
from eventstore.partition import PARTITIONS
from eventstore.types import HISTORY, UPLOADS

LEASE = "relay/0"
BATCH_EVENTS = 1000
POLL_S = 0.003
POLL_MAX_S = 0.1
WATERMARK_S = 1.0
RETRY_S = 0.2
RETRY_MAX_S = 2.0
ACKNOWLEDGED_TIMEOUT_S = 8.0
DISCARD_TIMEOUT_S = 60.0
PROBLEM_CHARACTERS = 500
END_S = 1.5
# On systems where a waiting thread holds up signals, they come so late at most.
SIGNALS_S = 5.0
STATEMENT_TIMEOUT_S = 30.0
NOTE_TIMEOUT_S = 5.0

_NOTE_PROBLEM = "UPDATE feed.relay SET problem = %s WHERE log_id = 0"
_log = logging.getLogger(__name__)


def run(database_url: str, settings: KafkaSettings, stop: Stop) -> None:
    """Relay until stopped, or stand by while another relay does. Goes on by itself after failures."""
    members = Membership(database_url, Member("relay", features=HANDLED["relay"]), only(LEASE)).start()
    retry_s = RETRY_S
    try:
        while not stop.is_set():
            if LEASE not in members.held:
                stop.wait(0.1)
                continue
            began = time.monotonic()
            try:
                _lead(database_url, settings, members, stop)
                retry_s = RETRY_S
            except (KafkaError, OSError, psycopg.Error, WrongTopic, Replaced) as problem:
                RELAY_FAILURES.inc()
                if time.monotonic() - began > 10 * RETRY_MAX_S:
                    retry_s = RETRY_S
                _log.warning("the relay starts again in %.1f s: %s: %s", retry_s, type(problem).__name__, problem)
                _note_problem(database_url, problem)
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
    finally:
        members.close()


def run_until(database_url: str, settings: KafkaSettings, stop: Stop) -> None:
    """Relay until stopped, and end then even if a call to Kafka hangs: unacknowledged records are sent again later."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            run(database_url, settings, stop)
        except Exception as problem:
            failures.append(problem)
            raise
        finally:
            stop.set()

    worker = threading.Thread(target=work, name="relay", daemon=True)
    worker.start()
    while not stop.wait(SIGNALS_S):
        pass
    worker.join(END_S)
    if failures:
        # The supervisor must see that this process failed, and start it again.
        raise failures[0]


def _note_problem(database_url: str, problem: Exception) -> None:
    text = f"{type(problem).__name__}: {problem}"[:PROBLEM_CHARACTERS]
    try:
        with connect(database_url, name="tagtrail-relay", statement_timeout_s=NOTE_TIMEOUT_S) as connection:
            connection.execute(_NOTE_PROBLEM, (text,))
    except psycopg.Error as error:
        _log.warning("the problem could not be noted: %s", error)


def _lead(database_url: str, settings: KafkaSettings, members: Membership, stop: Stop) -> None:
    with connect(database_url, name="tagtrail-relay", statement_timeout_s=STATEMENT_TIMEOUT_S) as connection:
        # After a crash the checkpoint may be an earlier one, which does no harm.
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET enable_seqscan = off")
        connection.execute("SELECT log.es_note_cluster(0::smallint)")
        logs = [Followed(connection, each) for each in (HISTORY, UPLOADS)]
        (partitions,) = connection.execute(PARTITIONS).fetchone() or (0,)
        admin = make_admin(settings)
        try:
            found = topics.ensure(admin, settings, partitions)
        finally:
            admin.close()
        for each in logs:
            _refuse_the_future(connection, each, settings, partitions)
            _note_topics(each, found)
            each.begin(partitions)
        producer = make_producer(settings)
        try:
            _Publisher(connection, producer, settings, logs, partitions).run(members, stop)
        finally:
            _discard(producer)


def _discard(producer: KafkaProducer) -> None:
    """Close the producer in a thread, because closing waits until all that it holds was sent or has expired.

    The records that it still sends meanwhile are sent again, identical.
    """

    def close() -> None:
        with contextlib.suppress(KafkaTimeoutError):
            producer.close(timeout=DISCARD_TIMEOUT_S)

    threading.Thread(target=close, name="discard", daemon=True).start()


def _note_topics(log: Followed, found: Topics) -> None:
    position, cluster_id, topic_ids = log.checkpoint()
    ids = " ".join(found.ids[kind] for kind in KINDS[log.log])
    if topic_ids and (cluster_id, topic_ids) != (found.cluster_id, ids):
        _log.error(
            "Kafka has another cluster or other topics than before (cluster %s, now %s): publishing of log %d goes on "
            "after position %d; consumers read from the store what they miss",
            *(cluster_id, found.cluster_id, log.log, position),
        )
    log.note(found.cluster_id, ids)


def _refuse_the_future(connection: psycopg.Connection, log: Followed, settings: KafkaSettings, partitions: int) -> None:
    """Raise the log's epoch if Kafka holds what the log does not: it was restored from a backup (rule: epochs).

    If a copy of the data folder was put back, there is no other trace of it.
    """
    epoch = log.epoch()
    for record in last_records(settings, settings.topic(KINDS[log.log][0]), partitions):
        if record.epoch == epoch and _is_foreign(log, record):
            connection.execute("SELECT log.es_raise_epoch(0::smallint, %s)", (epoch,))
            _log.error(
                "Kafka holds position %d of log %d, which the log does not have: it was restored; its epoch is %s now",
                *(record.position, log.log, log.epoch()),
            )
            break
    head = log.extent()[1]
    if log.checkpoint()[0] > head:
        log.go_back(head)


def _is_foreign(log: Followed, record: FeedRecord) -> bool:
    """True if the log has nothing of what the record holds, or another event there."""
    known = record.event is not None and log.event_id(record.position) == record.event.event_id
    # Asked after the event was looked for, because what the log has dropped, even just now, cannot be compared.
    first, head = log.extent()
    if known or record.position < first:
        return False
    return record.event is not None or record.position > head


class _Publisher:
    """One stretch of publishing, from the checkpoints on, until something fails."""

    def __init__(
        self,
        connection: psycopg.Connection,
        producer: KafkaProducer,
        settings: KafkaSettings,
        logs: Sequence[Followed],
        partitions: int,
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._logs = logs
        self._history = logs[0]
        self._topics = {kind: settings.topic(kind) for kind in TOPICS}
        self._marked = [0] * partitions
        self._mark_at = 0.0

    def run(self, members: Membership, stop: Stop) -> None:
        """Publish what is appended, until stopped or the lease is lost. Raises Replaced, KafkaError."""
        pause, published_at = POLL_S, time.monotonic()
        bell = Bell(self._connection)
        while not stop.is_set() and LEASE in members.held:
            # Each log has its turn, however much the other one has.
            if sum(self._publish_some(each) for each in self._logs):
                bell.leave()
                pause, published_at = POLL_S, time.monotonic()
                continue
            self._mark()
            # The last watermarks are sent a while after the last event.
            if time.monotonic() - published_at > QUIET_S + WATERMARK_S:
                bell.wait(stop)
            else:
                stop.wait(pause)
                pause = min(2 * pause, POLL_MAX_S)

    def _publish_some(self, log: Followed) -> bool:
        """Publish the next events of the log; True if there were any."""
        events = log.next_events(BATCH_EVENTS)
        if not events:
            return False
        epoch = log.epoch()
        sent: list[Any] = []
        counts = dict.fromkeys(log.last, 0)
        for event in events:
            kind = log.kind_of(event)
            last = log.last[kind]
            sent.append(self._send(kind, event.partition, outgoing(event, last[event.partition], epoch, log.log)))
            last[event.partition] = event.position
            counts[kind] += 1
        self._acknowledged(sent)
        for kind, count in counts.items():
            RELAYED.labels(kind.partition(".")[0]).inc(count)
        log.move(events[-1].position, epoch)
        return True

    def _send(self, kind: str, partition: int, record: Outgoing) -> Any:
        # The partition is the log's own, never the client library's choice (rule: fixed partitions). The record's time
        # is now, because retention counts from it: an old log, published for the first time, must not be gone at once.
        return self._producer.send(
            self._topics[kind],
            key=record.key,
            value=record.value,
            headers=record.headers,
            partition=partition,
        )

    def _acknowledged(self, sent: Sequence[Any]) -> None:
        self._producer.flush(timeout=ACKNOWLEDGED_TIMEOUT_S)
        for each in sent:
            each.get(timeout=ACKNOWLEDGED_TIMEOUT_S)

    def _mark(self) -> None:
        """Send watermarks to partitions without new events, so that they are known not to lag (rule: watermarks)."""
        if time.monotonic() < self._mark_at:
            return
        self._mark_at = time.monotonic() + WATERMARK_S
        position = self._history.position
        idle = {
            partition: last
            for partition, last in enumerate(self._history.last[EVENTS])
            if max(last, self._marked[partition]) < position
        }
        if not idle:
            return
        epoch, now = self._history.epoch(), datetime.now(UTC)
        self._acknowledged(
            [
                self._send(EVENTS, partition, watermark(partition, position, last, epoch, now))
                for partition, last in idle.items()
            ]
        )
        for partition in idle:
            self._marked[partition] = position
