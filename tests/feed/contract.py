"""The promises of a feed, as tests that every feed must pass; a subclass says how projectors are fed.

A feed brings the events of the log to the builds of the read models (rule: feeds keep one contract).
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from eventstore import schema
from eventstore.types import Recorded
from projections.all_models import MODELS
from projections.builds import admin
from projections.builds.rebuild import rebuild
from projections.builds.verify import verify
from projections.engine import checkpoints, kafka_feed, runner
from projections.engine.build_tables import Build
from projections.models import tags
from tests.api import Registry
from tests.feed.running import assert_right
from tests.folded import wait_folded
from tests.postgres import Database
from tests.projections.making import broken_fold, live_build, random_pushes
from tests.waiting import eventually

BAD = "u/bad"
Projectors = Callable[[int], AbstractContextManager[None]]

_CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tagtrail-projector'"


class Folded:
    """The positions that this process has folded, by build and key, in the order in which it did."""

    def __init__(self) -> None:
        self.positions: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._lock = threading.Lock()

    def add(self, build: Build, events: Sequence[Recorded]) -> None:
        """Note the events of a transaction. It locks the checkpoint, so no other thread notes events of this build."""
        with self._lock:
            for each in events:
                if each.type in build.model.types:
                    self.positions[build.id, each.key].append(each.position)


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> Folded:
    """Note everything that the feeds fold during the test."""
    made, whole = Folded(), checkpoints.apply

    def applied(connection: sa.Connection, build: Build, events: Sequence[Recorded], *rest: Any, **more: Any) -> None:
        whole(connection, build, events, *rest, **more)
        made.add(build, events)

    for feed in (runner, kafka_feed):
        monkeypatch.setattr(feed, "apply", applied)
    return made


def push_and_fold(registry: Registry, database: Database, seed: int, times: int = 5) -> None:
    """Push at random while projectors run, and wait until every live build has folded all of it."""
    random_pushes(registry, seed, times)
    wait_folded(database.app_url)


class FeedContract:
    """A subclass gives the fixture `projectors`: a call with a number runs so many of them until the block ends."""

    def test_events_from_before_the_start_and_new_ones_are_folded(
        self, registry: Registry, database: Database, projectors: Projectors
    ) -> None:
        random_pushes(registry, 1, 10)
        with projectors(1):
            wait_folded(database.app_url)
            push_and_fold(registry, database, 2, 10)
        assert_right(database.app_url)

    def test_each_event_is_folded_once_and_those_of_a_key_in_order(
        self, registry: Registry, database: Database, projectors: Projectors, folded: Folded
    ) -> None:
        """Two projectors share the work."""
        with projectors(2):
            push_and_fold(registry, database, 3, 20)
        log = registry.rooms.store.read_log(0, 100_000)
        for model in MODELS:
            build = live_build(database.app_url, model)
            expected: dict[str, list[int]] = defaultdict(list)
            for each in log:
                if each.type in model.types:
                    expected[each.key].append(each.position)
            assert {key: found for (of, key), found in folded.positions.items() if of == build.id} == expected

    def test_a_projector_goes_on_where_the_one_before_stopped(
        self, registry: Registry, database: Database, projectors: Projectors, folded: Folded
    ) -> None:
        with projectors(1):
            push_and_fold(registry, database, 4, 8)
        random_pushes(registry, 5, 8)
        with projectors(1):
            wait_folded(database.app_url)
        assert_right(database.app_url)
        assert all(len(set(each)) == len(each) for each in folded.positions.values())

    def test_a_projector_that_is_cut_off_from_the_database_goes_on(
        self, registry: Registry, database: Database, projectors: Projectors
    ) -> None:
        with projectors(1):
            push_and_fold(registry, database, 6)
            with psycopg.connect(database.admin_url, autocommit=True) as connection:
                assert connection.execute(_CUT_OFF).fetchall()
            push_and_fold(registry, database, 7)
        assert_right(database.app_url)

    def test_a_key_that_a_fold_cannot_take_is_parked_and_all_others_go_on(
        self, registry: Registry, database: Database, projectors: Projectors
    ) -> None:
        """It is parked in the one model whose fold fails; the rest of the feed does not wait."""
        with broken_fold("raises"), projectors(1):
            registry.push(BAD, "boom", b"1")
            registry.push("u/good", "v1", b"1")
            found = eventually(lambda: admin.status(database.app_url).parked, what="something parked")
            registry.push(BAD, "later", b"2")
            registry.push("u/good", "v2", b"2")
            wait_folded(database.app_url)
            assert [(each.model, each.key) for each in found] == [("tags", BAD)]
            with psycopg.connect(database.app_url) as connection:
                rows = connection.execute("SELECT repository, tag FROM readmodel.tags_s1 ORDER BY tag").fetchall()
            assert rows == [("u/good", "v1"), ("u/good", "v2")]

    def test_a_build_that_was_replaced_and_the_one_in_its_place_are_both_fed(
        self, registry: Registry, database: Database, projectors: Projectors
    ) -> None:
        """The replaced build stays level, so that going back to it takes only a moment."""
        random_pushes(registry, 8, 5)
        with projectors(1):
            wait_folded(database.app_url)
            before = live_build(database.app_url, tags.model)
            rebuild(database.app_url, tags.model)
            assert live_build(database.app_url, tags.model) != before
            registry.push("u/app", "after", b"1")
            head = registry.rooms.store.read_log(0, 100_000, types=["TagMoved"])[-1].position
            wait_folded(database.app_url)
            with psycopg.connect(database.app_url, autocommit=True) as connection:
                folded_upto = f"SELECT position FROM readmodel.{before.table.name} WHERE tag = 'after'"
                eventually(lambda: connection.execute(folded_upto).fetchone() == (head,))
        assert_right(database.app_url)

    def test_read_models_that_know_more_than_the_log_start_from_nothing(
        self, registry: Registry, database: Database, projectors: Projectors
    ) -> None:
        """Only the log was restored, so the read models hold rows of another history (rule: epochs)."""
        with projectors(1):
            push_and_fold(registry, database, 9, 10)
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE log.es_event DISABLE TRIGGER USER")
            connection.execute("DELETE FROM log.es_event WHERE position > 10")
            connection.execute("ALTER TABLE log.es_event ENABLE ALWAYS TRIGGER es_event_append_only")
            connection.execute("UPDATE log.es_log SET system_identifier = 'elsewhere'")
        schema.note_cluster(database.app_url)

        def is_folded_anew() -> bool:
            return all(each.equal and each.position == 10 for each in verify(database.app_url))

        with projectors(1):
            eventually(is_folded_anew)
