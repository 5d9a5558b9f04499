"""Secrets that seal ids: who may read them, when a new one is made, when an old one goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from eventstore.store import Store
from eventstore.upkeep import Upkeep
from tests.eventstore.making import Clock
from tests.postgres import APP_ROLE, Database

DAY = timedelta(days=1)
KEPT = timedelta(hours=24)


@pytest.fixture
def clock() -> Clock:
    """The keeper's clock."""
    return Clock()


@pytest.fixture
def upkeep(database: Database, clock: Clock) -> Iterator[Upkeep]:
    """The keeper's tasks."""
    made = Upkeep(database.app_url, clock)
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """The log as the application has it."""
    made = Store(database.app_url)
    yield made
    made.close()


def ids(store: Store) -> list[int]:
    return [each.id for each in store.seal_keys()]


def test_a_new_log_has_a_key(store: Store) -> None:
    (key,) = store.seal_keys()
    assert len(key.secret) == 32


def test_only_the_role_of_the_application_reads_them_and_nobody_changes_them(database: Database) -> None:
    with psycopg.connect(database.admin_url) as connection:
        granted = connection.execute(
            "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
            " WHERE table_schema = 'log' AND table_name = 'es_seal_key'"
            " AND grantee <> (SELECT tableowner FROM pg_tables WHERE schemaname = 'log' AND tablename = 'es_seal_key')"
        ).fetchall()
    assert granted == [(APP_ROLE, "SELECT")]


def test_a_key_is_made_each_day_and_goes_when_its_successor_is_old(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    removed = []
    for _ in range(4 * 24):
        clock.now += timedelta(hours=1)
        removed.append(upkeep.rotate_seal_keys(DAY, KEPT).removed)
        assert 1 <= len(ids(store)) <= 3
    assert ids(store) == [3, 4]
    assert sum(removed) == 2
    clock.now += timedelta(days=30)
    assert upkeep.seal_keys_over(KEPT) == 1
    assert upkeep.rotate_seal_keys(DAY, KEPT).removed == 1
    assert ids(store) == [4, 5], "the key before the newest was in use until a moment ago"


def test_a_key_from_the_future_does_not_stop_the_rotation(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    """A clock was wrong, and has been set right."""
    clock.now += timedelta(days=400)
    upkeep.rotate_seal_keys(DAY, KEPT)
    clock.now -= timedelta(days=400)
    upkeep.rotate_seal_keys(DAY, KEPT)
    assert ids(store) == [1, 2, 3]
    upkeep.rotate_seal_keys(DAY, KEPT)
    assert ids(store) == [1, 2, 3]


def test_keepers_that_rotate_at_once_make_one_key(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    clock.now += timedelta(hours=25)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: upkeep.rotate_seal_keys(DAY, KEPT), range(4)))
    assert ids(store) == [1, 2]


def test_the_owner_can_leave_only_a_new_key(store: Store, database: Database) -> None:
    """As docs/operating.md says, after a key became known."""
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        connection.execute("SELECT log.es_rotate_seal_keys(now(), '0 s', '0 s')")
    assert ids(store) == [2]
