"""Upkeep of the store: what each task removes, and that it costs no more on a large log than on a small one."""

import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore import upkeep
from eventstore.store import Store
from eventstore.types import Appended, Command, Content
from eventstore.upkeep import Step, Upkeep
from tests.eventstore.costs import pages, pages_again
from tests.eventstore.large import make_large
from tests.eventstore.making import Clock, append_batch, command, event
from tests.postgres import Database, Server, drop_database, new_database

ROWS = 100_000
# The most pages that a question may touch which finds nothing to do: some descents of an index.
FEW_PAGES = 100
KEPT = timedelta(hours=72)


@pytest.fixture
def clock() -> Clock:
    """The time at which the test began."""
    return Clock()


@pytest.fixture
def kept(database: Database, clock: Clock) -> Iterator[Upkeep]:
    """The upkeep of the test's log."""
    made = Upkeep(database.app_url, clock)
    yield made
    made.close()


@pytest.fixture
def store(database: Database, clock: Clock) -> Iterator[Store]:
    """Its store; commands may be of any time."""
    made = Store(database.app_url, clock=clock, allow_clock_skew=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def large(postgres_server: Server) -> Iterator[Database]:
    """A log in which nothing is to be removed: contents and addresses of 30 days, keys of 60 hours, sets."""
    made = new_database(postgres_server)
    make_large(made, ROWS)
    yield made
    drop_database(postgres_server, made)


def is_known(store: Store, given: Command) -> bool:
    """True if its idempotency key stands; appends it otherwise."""
    outcome = store.append(given)
    assert isinstance(outcome, Appended)
    return outcome.repeated


def test_a_round_that_finds_nothing_costs_the_same_on_a_large_log(large: Database) -> None:
    """The statements of the product, with all that their functions do."""
    now = datetime.now(UTC)
    old = now - timedelta(days=90)
    with psycopg.connect(large.app_url, autocommit=True) as connection:
        found = {
            name: pages_again(connection, getattr(upkeep, name), parameters)
            for name, parameters in {
                "SWEEP_CONTENT": (now - timedelta(days=1), upkeep.CONTENT_SLICE),
                "NEW_CONTENT": (now - timedelta(days=1), upkeep.COUNTED_MAX),
                "SWEEP_SETS": (now, upkeep.MEMBERS_SLICE),
                "IDLE_SETS": (now, upkeep.COUNTED_MAX),
                "FORGET_COMMANDS": (KEPT, now),
                "COMMANDS_OVER": (KEPT, now),
                "ERASE_CLIENTS": (old, upkeep.CLIENTS_SLICE),
                "CLIENTS_OVER": (old, upkeep.COUNTED_MAX),
            }.items()
        }
    assert {name: cost for name, cost in found.items() if cost > FEW_PAGES} == {}


def test_what_the_release_before_asks_for_costs_as_little(large: Database) -> None:
    """Its processes may still run: each of its workers asks for both every minute."""
    now = datetime.now(UTC)
    with psycopg.connect(large.app_url, autocommit=True) as connection:
        swept = pages_again(connection, "SELECT log.es_sweep_content(%s, 1000)", (now - timedelta(days=1),))
        forgotten = pages_again(connection, "SELECT log.es_forget_commands(0::smallint, %s)", (now - KEPT,))
    assert (swept <= FEW_PAGES, forgotten <= FEW_PAGES) == (True, True), (swept, forgotten)


def test_erasing_addresses_costs_what_is_erased(large: Database) -> None:
    """A slice reads some pages for each row that goes, and steps over nothing that went before."""
    before = datetime.now(UTC) - timedelta(days=20)
    with psycopg.connect(large.app_url, autocommit=True) as connection:
        costs = [pages(connection, upkeep.ERASE_CLIENTS, (before, 1000)) for _ in range(10)]
        left = connection.execute("SELECT count(*) FROM log.es_client WHERE first_position <= 10000").fetchone()
    assert left == (0,)
    assert max(costs) < 10 * 1000, costs


def test_new_content_is_looked_at_once(store: Store, kept: Upkeep, clock: Clock) -> None:
    """Named content stays, the other goes, and neither is looked at again."""
    for number in range(upkeep.CONTENT_SLICE + 50):
        store.put_content(Content(f"d{number}", b"x", "{}"))
    for number in range(50):
        assert isinstance(store.append(command(event("a", content=f"d{number}"))), Appended)
    kept_for = timedelta(hours=24)
    assert kept.content_to_sweep(kept_for) == 0
    clock.now += timedelta(hours=25)
    assert kept.content_to_sweep(kept_for) == upkeep.CONTENT_SLICE + 50
    steps = [kept.sweep_content(kept_for) for _ in range(3)]
    assert [each.more for each in steps] == [True, True, False]
    assert sum(each.removed for each in steps) == upkeep.CONTENT_SLICE
    assert kept.content_to_sweep(kept_for) == 0
    found = [number for number in range(upkeep.CONTENT_SLICE + 50) if store.get_content(f"d{number}") is not None]
    assert found == list(range(50))


def test_a_sweep_deletes_few_bytes_at_a_time(store: Store, kept: Upkeep, clock: Clock) -> None:
    """Appends wait while it deletes, so large manifests go in smaller slices; all of them go."""
    megabytes, slices = 12, 0
    for number in range(megabytes):
        # Random, so that it takes the space in the database, too.
        store.put_content(Content(f"d{number:02d}", random.Random(number).randbytes(1024 * 1024), "{}"))
    clock.now += timedelta(hours=25)
    removed, more = 0, True
    while more:
        step = kept.sweep_content(timedelta(hours=24))
        assert step.removed <= 6
        removed, more, slices = removed + step.removed, step.more, slices + 1
    assert removed == megabytes
    assert slices >= 3
    assert kept.content_to_sweep(timedelta(hours=24)) == 0
    assert [number for number in range(megabytes) if store.get_content(f"d{number:02d}") is not None] == []


def test_content_from_before_the_list_is_swept_too(
    database: Database, store: Store, kept: Upkeep, clock: Clock
) -> None:
    """Content of an older schema is listed in slices that go on where they were broken off."""
    total = 2 * upkeep.CONTENT_SLICE + 10
    for number in range(total):
        store.put_content(Content(f"d{number:04d}", b"x", "{}"))
    store.append(command(event("a", content="d0007")))
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("DELETE FROM log.es_content_new")
    clock.now += timedelta(hours=25)
    assert kept.backfills_left() == 1
    assert kept.backfill() == Step(0, more=True)
    assert kept.content_to_sweep(timedelta(hours=24)) == upkeep.CONTENT_SLICE - 1
    resumed = Upkeep(database.app_url, clock)
    steps = 0
    while resumed.backfill().more:
        steps += 1
    assert (steps, resumed.backfills_left()) == (3, 0)
    swept = 0
    while (step := resumed.sweep_content(timedelta(hours=24))).more:
        swept += step.removed
    assert swept + step.removed == total - 1
    assert store.get_content("d0007") is not None
    resumed.close()


def test_keys_are_kept_for_three_days_whenever_they_were_made(store: Store, kept: Upkeep, clock: Clock) -> None:
    """Twice round the ring: a key of 72 hours is known, one of eight days is not; the keeper comes once a day."""
    made: list[Command] = []
    emptied = 0
    for _ in range(24):
        made.append(command(event("a"), now=clock.now))
        store.append(made[-1])
        emptied += kept.forget_commands(KEPT).removed
        assert kept.commands_to_forget(KEPT) == 0
        known = [is_known(store, each) for each in made[-4:]]
        assert all(known), known
        if len(made) > 8:
            assert not is_known(store, made[-9])
            # It is new again, and of no interest any more.
            made[-9] = made[-1]
        clock.now += timedelta(days=1)
    assert emptied >= 4


@pytest.mark.parametrize("ahead", range(2, 14))
def test_keys_are_counted_by_the_time_of_the_log(store: Store, kept: Upkeep, clock: Clock, ahead: int) -> None:
    """After the clocks were set back by days, keys are recorded ahead of them, and are kept all the same."""
    store.append(command(event("a"), now=clock.now + timedelta(days=ahead)))
    late = command(event("b"), now=clock.now)
    store.append(late)
    kept.forget_commands(KEPT)
    assert is_known(store, late)


def test_keys_from_before_the_ring_are_known_and_then_forgotten(
    database: Database, store: Store, kept: Upkeep, clock: Clock
) -> None:
    """Those that stand in the table of the schema before; it is emptied once all of them are old."""
    old = command(event("a"), now=clock.now)
    store.append(old)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(
            "WITH moved AS (DELETE FROM log.es_command_ring RETURNING log_id, id, recorded_at, result)"
            " INSERT INTO log.es_command (log_id, id, recorded_at, result) SELECT * FROM moved"
        )
        assert is_known(store, old)
        clock.now += timedelta(hours=71)
        assert kept.forget_commands(KEPT) == Step(0)
        clock.now += timedelta(hours=2)
        assert kept.forget_commands(KEPT) == Step(1)
        assert admin.execute("SELECT count(*) FROM log.es_command").fetchone() == (0,)


def test_appends_do_not_wait_for_a_backup(database: Database, store: Store, kept: Upkeep, clock: Clock) -> None:
    """One that reads the keys holds back their removal, which tries again later, and nothing else."""
    store.append(command(event("a"), now=clock.now))
    clock.now += timedelta(days=8)
    with psycopg.connect(database.admin_url) as backup:
        backup.execute("LOCK TABLE log.es_command_ring IN ACCESS SHARE MODE")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(kept.forget_commands, KEPT).result(5.0) == Step(0)
        assert kept.commands_to_forget(KEPT) == 1
        assert isinstance(store.append(command(event("a"), now=clock.now)), Appended)
    assert kept.forget_commands(KEPT) == Step(1)


def test_a_key_is_found_at_the_same_cost_in_every_partition(large: Database) -> None:
    """An append that repeats an old command touches as many pages as one that repeats a new one, and few."""
    with psycopg.connect(large.app_url, autocommit=True) as connection:
        append_batch(connection, [command(event("warm"))])
        costs = []
        for number in (1, ROWS // 2, ROWS):
            done = {"id": hashlib.md5(str(number).encode()).hexdigest(), "now": "2026-01-01T00:00:00Z", "events": []}
            batch = json.dumps([done | {"actor": "a", "request_id": "r"}])
            costs.append(pages(connection, "SELECT log.es_append(0::smallint, %s::jsonb, false)", (batch,)))
    assert max(costs) <= 100, costs


def test_addresses_are_erased_and_the_log_keeps_none(
    database: Database, store: Store, kept: Upkeep, clock: Clock
) -> None:
    """They stand beside the log, never in it; those up to the moment go, in slices."""
    for minute in range(1, 11):
        moment = clock.now + timedelta(minutes=minute)
        store.append(command(event("a"), now=moment, address="192.0.2.1"))
    before = clock.now + timedelta(minutes=4)
    assert kept.clients_to_erase(before) == 4
    assert kept.erase_clients(before) == Step(4)
    assert kept.clients_to_erase(before) == 0
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        rows = connection.execute("SELECT first_position, last_position, address FROM log.es_client").fetchall()
        assert sorted(rows) == [(number, number, "192.0.2.1") for number in range(5, 11)]
        found = connection.execute("SELECT count(*) FROM log.es_event AS e WHERE e::text LIKE '%192.0.2%'").fetchone()
    assert found == (0,)
    assert store.head() == 10
