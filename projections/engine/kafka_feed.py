"""The projector's loop where Kafka feeds it (rule: Kafka is never the truth).

The store gives the events that Kafka does not bring.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from eventstore.feed.bell import QUIET_S, Bell
from eventstore.feed.chain import Run, follow
from eventstore.feed.consumer import Batch, FeedReader, Place
from eventstore.feed.members import Membership, Wants
from eventstore.feed.metrics import DISCARDED, DUPLICATES, EVENTS_CONSUMED, HOLES
from eventstore.feed.records import FeedRecord
from eventstore.feed.settings import KafkaSettings
from eventstore.feed.waking import Stop
from eventstore.partition import PARTITIONS
from eventstore.types import Recorded
from projections.engine import build_tables
from projections.engine.attempts import Attempts
from projections.engine.build_tables import LIVE, Build, checkpoint
from projections.engine.checkpoints import Moved, apply, lock
from projections.engine.folding import fitting, read_batch
from projections.engine.setup import driver_of
from projections.model import Model

STALLED_S = 2.0
# One build is worked on for so long at a time, or for one transaction that takes longer. Then the next has its turn.
CATCH_UP_S = 1.0
LOOK_S = 0.25
POLL_S = 0.2
# Watermarks, which bring partitions without new events up to the head, come within this time after the last event.
CALM_S = QUIET_S + 2.0
MERGED_BATCHES_MAX = 8

_POSITIONS = """
SELECT c.build, c.partition, c.position,
       (SELECT coalesce(max(e.position), 0) FROM log.es_event AS e WHERE e.log_id = 0)
  FROM readmodel.checkpoint AS c WHERE c.build = ANY(%(builds)s)
"""
_log = logging.getLogger(__name__)


def lease_name(model: Model, partition: int) -> str:
    """The lease by which one projector feeds a model in a partition."""
    return f"{model.id}/{partition}"


def wants(models: Sequence[Model]) -> Wants:
    """Share the partitions of each model among the live projectors that feed it, evenly, each by its own count."""

    def share(alive: Sequence[tuple[str, frozenset[str]]], me: str, partitions: int) -> Iterable[str]:
        for model in models:
            able = [each for each, shapes in alive if model.id in shapes] or [me]
            for partition in range(partitions):
                if able[partition % len(able)] == me:
                    yield lease_name(model, partition)

    return share


@dataclass(slots=True)
class _Watched:
    """The position of a build in a partition, and the last time at which Kafka moved it or it was level."""

    position: int
    since: float


class KafkaFeed:
    """One stretch of projecting, on one connection, until stopped or the connection fails."""

    def __init__(
        self, connection: sa.Connection, models: Sequence[Model], kafka: KafkaSettings, members: Membership, batch: int
    ) -> None:
        self._connection = connection
        self._models = models
        self._members = members
        self._batch = batch
        self._attempts = Attempts()
        self._partitions = int(connection.exec_driver_sql(PARTITIONS).scalar_one())
        connection.commit()
        self._builds: list[Build] = []
        self._owned: dict[str, frozenset[int]] = {}
        self._watched: dict[tuple[str, int], _Watched] = {}
        self._look_at = 0.0
        self._bell = Bell(driver_of(connection))
        self._reader = FeedReader(kafka, self._bell.wake)
        members.on_change(self._bell.wake)
        self._active_at = time.monotonic()

    def run(self, stop: Stop) -> None:
        """Fold the events that the feed brings into all builds, for the partitions that are leased.

        Looks often while anything moves. Once all is level for a while, it waits for a notification of the database,
        which comes before the event does through Kafka.
        """
        self._reader.start()
        try:
            while not stop.is_set():
                calm = time.monotonic() - self._active_at > CALM_S
                if calm:
                    self._rest(stop)
                if calm or time.monotonic() >= self._look_at:
                    self._look_at = time.monotonic() + LOOK_S
                    self._share()
                    self._feed_stalled(stop)
                batch = self._reader.get(0 if calm else POLL_S)
                if batch is not None:
                    self._stir()
                    self._take(self._merged(batch), stop)
        finally:
            self._reader.close()

    def _rest(self, stop: Stop) -> None:
        self._reader.rest()
        self._bell.wait(stop)
        # Partitions that were level so far begin to wait for Kafka only now.
        self._watched.clear()

    def _stir(self) -> None:
        """There is something to do: look often for a while."""
        self._active_at = time.monotonic()
        self._bell.leave()
        self._reader.wake()

    def _merged(self, batch: Batch) -> Batch:
        """Join the batch with those that wait behind it, for fewer and larger transactions under load."""
        records = {partition: list(each) for partition, each in batch.records.items()}
        for _ in range(MERGED_BATCHES_MAX):
            more = self._reader.get(0) if self._reader.waiting else None
            if more is None:
                break
            for partition, each in more.records.items():
                records.setdefault(partition, []).extend(each)
            batch = Batch(more.topic_id, records)
        return Batch(batch.topic_id, records)

    def _share(self) -> None:
        """Learn which builds there are, and which partitions are ours now."""
        self._builds = build_tables.listed(self._connection, self._models)
        self._connection.commit()
        held = self._held
        owned = {
            model.id: frozenset(each for each in range(self._partitions) if lease_name(model, each) in held)
            for model in self._models
        }
        if owned != self._owned:
            self._owned = owned
            self._watched.clear()
            self._stir()
            self._reader.assign(self._places(frozenset().union(*owned.values())))

    @property
    def _held(self) -> frozenset[str]:
        return self._members.held

    def _places(self, partitions: frozenset[int]) -> dict[int, Place]:
        """The places to read on from: those of the live build that is furthest behind, if all stopped in one topic."""
        live = [each.id for each in self._builds if each.state == LIVE]
        query = sa.select(checkpoint.c.partition, checkpoint.c.topic_id, checkpoint.c.next_offset).where(
            checkpoint.c.build.in_(live), checkpoint.c.partition.in_(partitions)
        )
        found: dict[int, list[Place]] = {each: [] for each in partitions}
        for partition, topic_id, next_offset in self._connection.execute(query):
            found[partition].append(Place(topic_id, next_offset))
        self._connection.commit()
        places = {}
        for partition, each in found.items():
            offsets = [place.next_offset for place in each if place.next_offset is not None]
            same = len({place.topic_id for place in each}) == 1 and len(offsets) == len(each)
            places[partition] = Place(each[0].topic_id, min(offsets)) if same and offsets else Place()
        return places

    def _take(self, batch: Batch, stop: threading.Event) -> None:
        """Fold a batch into all builds.

        Records that a build has not folded by the end of its turn are dropped. They are a hole then, and the store has
        their events.
        """
        for build in self._builds:
            mine = {each: batch.records[each] for each in self._owned.get(build.model.id, ()) if each in batch.records}
            # A build that fails is fed from the store, so that the others do not wait for it.
            if not mine or self._attempts.failing(build):
                continue

            def step(isolate: bool, build: Build = build, mine: Mapping[int, Sequence[FeedRecord]] = mine) -> bool:
                until = time.monotonic() + CATCH_UP_S
                while mine := self._take_once(build, batch.topic_id, mine, isolate=isolate):
                    if stop.is_set() or time.monotonic() >= until:
                        break
                return True

            self._attempts.run(self._connection, build, step)

    def _take_once(
        self, build: Build, topic_id: str, records: Mapping[int, Sequence[FeedRecord]], *, isolate: bool
    ) -> dict[int, Sequence[FeedRecord]]:
        """One transaction; answers the records that are to be given again: those that were too much for it."""
        runs: dict[int, Run] = {}
        most = max(1, self._batch // len(records))
        with self._connection.begin():
            locked = lock(self._connection, build, sorted(records))
            if locked is None:
                return {}
            for partition, each in records.items():

                def read_store(after: int, upto: int, partition: int = partition) -> tuple[list[Recorded], int]:
                    return self._read_store(build, {partition: after}, upto, most)

                last = locked.positions[partition]
                runs[partition] = follow(last, each, locked.epoch, locked.head, read_store)
            events = sorted((each for run in runs.values() for each in run.events), key=lambda event: event.position)
            fit = fitting(self._connection, build.model, events)
            if fit < len(events):
                # A partition that was further already stays where it is: its checkpoint never moves back.
                end = events[fit].position - 1
                runs = {partition: run.upto(max(end, locked.positions[partition])) for partition, run in runs.items()}
                events = events[:fit]
            moved = {
                partition: Moved(run.position, topic_id if run.next_offset is not None else None, run.next_offset)
                for partition, run in runs.items()
            }
            apply(self._connection, build, events, moved, isolate=isolate)
        self._count(build, runs.values(), sum(each.type in build.model.types for each in events))
        return {
            partition: [each for each in records[partition] if each.position > run.position]
            for partition, run in runs.items()
            if not run.complete
        }

    def _count(self, build: Build, runs: Iterable[Run], events: int) -> None:
        runs = list(runs)
        repaired = sum(run.repaired for run in runs)
        holes = sum(run.holes for run in runs)
        EVENTS_CONSUMED.labels("store").inc(repaired)
        EVENTS_CONSUMED.labels("kafka").inc(events - repaired)
        HOLES.inc(holes)
        DUPLICATES.inc(sum(run.duplicates for run in runs))
        DISCARDED.inc(sum(run.discarded for run in runs))
        if holes:
            _log.warning("the feed of %s had %d holes: %d events were read from the store", build.id, holes, repaired)

    def _read_store(
        self, build: Build, positions: Mapping[int, int], upto: int, most: int
    ) -> tuple[list[Recorded], int]:
        after = min(positions.values())
        upto = min(upto, after + self._partitions * self._batch)
        return read_batch(self._connection, build.model, after, upto, positions, most)

    def _feed_stalled(self, stop: threading.Event) -> None:
        """Feed partitions from the store that have been behind without moving for a while, or that have failed."""
        query = self._connection.exec_driver_sql(_POSITIONS, {"builds": [each.id for each in self._builds]})
        places = {(row[0], row[1]): (int(row[2]), int(row[3])) for row in query}
        self._connection.commit()
        now = time.monotonic()
        owned = frozenset().union(*self._owned.values())
        if any(position < head for (_, partition), (position, head) in places.items() if partition in owned):
            self._stir()
        for build in self._builds:
            stalled = [
                partition
                for partition in sorted(self._owned.get(build.model.id, ()))
                if self._is_stalled(build, partition, *places.get((build.id, partition), (0, 0)), now)
            ]
            if stalled and self._attempts.may(build):
                self._bring_along(build, stalled, stop)

    def _is_stalled(self, build: Build, partition: int, position: int, head: int, now: float) -> bool:
        watched = self._watched.get((build.id, partition))
        if watched is None or watched.position != position or position >= head:
            self._watched[build.id, partition] = _Watched(position, now)
            return False
        return self._attempts.failing(build) or now - watched.since > STALLED_S

    def _bring_along(self, build: Build, partitions: Sequence[int], stop: threading.Event) -> None:
        """Give a build its turn: fold the store's events of the partitions until they are level, or time is up."""
        until, read = time.monotonic() + CATCH_UP_S, 0

        def step(isolate: bool) -> bool:
            nonlocal read
            found, more = self._catch_up(build, partitions, isolate=isolate)
            read += found
            return more

        while self._attempts.run(self._connection, build, step) and time.monotonic() < until and not stop.is_set():
            pass
        if read:
            _log.warning("the feed of %s is behind: %d events were read from the store", build.id, read)

    def _catch_up(self, build: Build, partitions: Sequence[int], *, isolate: bool) -> tuple[int, bool]:
        """Fold a batch of the store's events of the partitions; answers their number, and True if there are more."""
        with self._connection.begin():
            locked = lock(self._connection, build, partitions)
            if locked is None:
                return 0, False
            found, reached = self._read_store(build, locked.positions, locked.head, self._batch)
            moved = {each: Moved(reached) for each, position in locked.positions.items() if position < reached}
            apply(self._connection, build, found, moved, isolate=isolate)
        EVENTS_CONSUMED.labels("store").inc(len(found))
        more = reached < locked.head
        for each in moved if more else ():
            # It has moved, but not by Kafka: the next look goes on, without a wait for Kafka before it.
            if (build.id, each) in self._watched:
                self._watched[build.id, each].position = reached
        return len(found), more
