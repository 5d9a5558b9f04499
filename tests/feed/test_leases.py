"""Leases are renewed in time, and a process that lacks one looks for it more often."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from domain.features import HANDLED
from eventstore.feed import members
from eventstore.feed.members import BEAT_S, LEASE_S, RETRY_S, STATEMENT_TIMEOUT_S, Member, Membership
from eventstore.reader import Reader
from tests.postgres import Database

BEATS = 12


class Clock:
    """The process's time, which passes as the test says."""

    now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    """The connection on which a process renews its leases."""
    with psycopg.connect(database.app_url, autocommit=True) as made:
        yield made


def test_leases_are_renewed_at_each_beat_and_outlast_one_that_fails(
    database: Database, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a beat that runs into the time limit of statements there is another one before the leases run out."""
    clock, found = Clock(), list[object]()
    monkeypatch.setattr(members, "time", clock)
    process = Membership(
        database.app_url, Member("projector", features=HANDLED["projector"]), lambda alive, me, partitions: ["one/0"]
    )
    for _ in range(BEATS):
        left = process._valid_until - clock.now
        assert not found or left >= STATEMENT_TIMEOUT_S + 2 * RETRY_S
        assert process._beat(connection)
        assert process.held == {"one/0"}
        found += connection.execute("SELECT until FROM feed.lease WHERE holder = %s", (process.id,)).fetchall()
        clock.now += BEAT_S
    assert len(found) == BEATS
    assert len(set(found)) == BEATS
    clock.now += LEASE_S
    assert process.held == frozenset()


def test_a_process_that_lacks_a_lease_says_so_and_tells_when_it_has_it(
    database: Database, connection: psycopg.Connection
) -> None:
    """A beat answers False while a lease is lacking. Then the next one comes sooner, to take over from a killed one."""
    member = Member("projector", features=HANDLED["projector"])
    first, second = (Membership(database.app_url, member, lambda alive, me, partitions: ["one/0"]) for _ in range(2))
    told: list[frozenset[str]] = []
    second.on_change(lambda: told.append(second.held))
    assert first._beat(connection)
    assert not second._beat(connection)
    assert told == []
    connection.execute("UPDATE feed.lease SET until = clock_timestamp() - interval '1 second'")
    assert second._beat(connection)
    assert second._beat(connection)
    assert told == [{"one/0"}]


def test_a_process_signs_off_though_the_connections_of_its_pool_are_dead(
    database: Database, connection: psycopg.Connection
) -> None:
    """A restarted database leaves as many dead ones as the pool had, and a beat meets one of them at a time."""
    pool = Reader(database.app_url, pool_size=4, timeout_s=STATEMENT_TIMEOUT_S, name="shared")
    with contextlib.closing(pool):
        process = Membership(
            database.app_url, Member("api", features=HANDLED["api"]), beat_s=600, lent=lambda: pool.lent(60)
        ).start()
        process.wait_tried(60)
        assert process.refusal is None
        with contextlib.ExitStack() as borrowed:
            for _ in range(4):
                borrowed.enter_context(pool.lent(60))
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE application_name = 'shared'"
        ).fetchone()
        assert ended == (4,)
        process.close(60)
    assert connection.execute("SELECT id FROM feed.process").fetchall() == []
