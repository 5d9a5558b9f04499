"""The combiner appends each command once in spite of lost answers, a held lock and a closed store."""

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from eventstore import calls
from eventstore.combiner import Combiner
from eventstore.connection import BoundedConnection, connect
from eventstore.schema import APPEND_LOCK
from eventstore.statement import Parameters, Row, Statement
from eventstore.store import Store
from eventstore.types import Appended, Cause, Command, NewEvent, StoreUnavailable
from tests.postgres import Database
from tests.waiting import eventually

DEADLINE_S = 60.0


class LosingConnection:
    """A connection whose backend is ended after each of its first appends was committed, before the answer."""

    losses_left = 3

    def __init__(self, url: str, admin_url: str) -> None:
        self._connection = connect(url, name="test", statement_timeout_s=None)
        self._admin_url = admin_url

    def ask(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run the statement; perhaps lose its answer."""
        rows = self._connection.ask(statement, parameters)
        if statement is calls.APPEND and LosingConnection.losses_left:
            LosingConnection.losses_left -= 1
            with psycopg.connect(self._admin_url, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (self._connection.info.backend_pid,))
            self._connection.execute("SELECT 1")
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def command(stream: str = "a") -> Command:
    """A command of one event."""
    event = NewEvent(stream, "key", "Happened", 1, "{}")
    return Command(secrets.token_hex(16), Cause("tester", "r"), datetime.now(UTC), (event,))


@pytest.fixture
def losing(database: Database) -> Iterator[Store]:
    """A store that loses its first three answers."""
    LosingConnection.losses_left = 3

    def connect_losing() -> Any:
        return LosingConnection(database.app_url, database.admin_url)

    made = Store(database.app_url, append_connect=connect_losing)
    yield made
    made.close()


def test_a_lost_answer_leads_to_one_append(losing: Store) -> None:
    """The same id is sent again until the outcome is known; it was appended once."""
    outcome = losing.append(command())
    assert isinstance(outcome, Appended)
    assert (outcome.repeated, outcome.positions) == (True, (1,))
    assert LosingConnection.losses_left == 0
    assert losing.head() == 1


def test_lost_answers_of_many_writers_lead_to_one_append_each(losing: Store) -> None:
    """Whole batches are repeated."""
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda n: losing.append(command(f"s{n}")), range(64)))
    assert sorted(each.last_position for each in outcomes if isinstance(each, Appended)) == list(range(1, 65))
    assert losing.head() == 64


def test_a_command_that_was_given_up_is_not_appended_behind_its_callers_back(database: Database) -> None:
    """While another holds the lock: one command is under way, those behind it are withdrawn unsent."""
    with closing(Store(database.app_url, append_timeout_s=1.0)) as store:
        store.append(command())
        with psycopg.connect(database.admin_url, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(%s, 0)", (APPEND_LOCK,))
            with ThreadPoolExecutor(8) as pool:
                futures = [pool.submit(store.append, command(f"s{number}")) for number in range(8)]
                errors = [str(each.exception()) for each in futures]
            assert all(isinstance(each.exception(), StoreUnavailable) for each in futures)
        withdrawn = [f"s{number}" for number, each in enumerate(errors) if "nothing was appended" in each]
        assert withdrawn
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                assert isinstance(store.append(command()), Appended)
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
        assert {each.version for each in store.stream_states(withdrawn).values()} == {0}


def test_what_was_given_up_is_not_sent_when_the_database_comes_back(database: Database) -> None:
    """The time of those that wait runs out while nobody can connect; later ones are appended without them."""
    away = threading.Event()
    away.set()

    def connect_perhaps() -> BoundedConnection:
        if away.is_set():
            raise psycopg.OperationalError("nobody there")
        return connect(database.app_url, name="test", statement_timeout_s=None)

    with closing(Store(database.app_url, append_timeout_s=0.3, append_connect=connect_perhaps)) as store:
        with ThreadPoolExecutor(4) as pool:
            errors = [pool.submit(store.append, command("given up")).exception() for _ in range(4)]
        assert {type(each) for each in errors} == {StoreUnavailable}
        away.clear()
        deadline = time.monotonic() + DEADLINE_S
        while store.stream_state("later").version == 0:
            assert time.monotonic() < deadline
            with suppress(StoreUnavailable):
                store.append(command("later"))
        assert store.stream_state("given up").version == 0


class ReadOnlyAtFirst:
    """A connection whose first append is refused, as by a server that is about to take writes again."""

    refusals_left = 1

    def __init__(self, url: str) -> None:
        self._connection = connect(url, name="test", statement_timeout_s=None)

    def ask(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """Run the statement, or refuse it."""
        if statement is calls.APPEND and ReadOnlyAtFirst.refusals_left:
            ReadOnlyAtFirst.refusals_left -= 1
            raise psycopg.errors.ReadOnlySqlTransaction("cannot write")
        return self._connection.ask(statement, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_what_is_given_up_while_the_combiner_pauses_is_not_sent_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause between two tries is longer than the caller waits."""
    ReadOnlyAtFirst.refusals_left = 1
    monkeypatch.setattr(calls, "RETRY_PAUSE_S", 1.0)

    def connect_refusing() -> Any:
        return ReadOnlyAtFirst(database.app_url)

    with closing(Store(database.app_url, append_connect=connect_refusing, append_timeout_s=0.3)) as store:
        with pytest.raises(StoreUnavailable):
            store.append(command("given up"))
        assert ReadOnlyAtFirst.refusals_left == 0

        def goes_on() -> bool:
            with suppress(StoreUnavailable):
                return isinstance(store.append(command("later")), Appended)
            return False

        eventually(goes_on, 30.0)
        assert store.stream_state("given up").version == 0


def test_a_batch_shares_one_call(database: Database) -> None:
    """All that queues while a call is under way goes together, in one transaction."""
    with closing(Store(database.app_url, append_timeout_s=60.0)) as store:
        store.append(command())
        with psycopg.connect(database.admin_url, autocommit=True) as holder, ThreadPoolExecutor(32) as pool:
            holder.execute("SELECT pg_advisory_lock(%s, 0)", (APPEND_LOCK,))
            futures = [pool.submit(store.append, command("first"))]
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock' AND query LIKE '%es_append%'"
            )
            eventually(lambda: holder.execute(waits).fetchone() == (1,))
            futures += [pool.submit(store.append, command(f"s{number}")) for number in range(31)]
            combiner = store._opened.get().appends
            assert isinstance(combiner, Combiner)
            eventually(lambda: len(combiner._queue) == 31)
            holder.execute("SELECT pg_advisory_unlock(%s, 0)", (APPEND_LOCK,))
            for each in futures:
                each.result()
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        row = admin.execute("SELECT count(*), count(DISTINCT xmin::text) FROM log.es_event").fetchone()
    assert row == (33, 3)


def test_a_closed_store_opens_again(database: Database) -> None:
    """close() finishes what is under way; a later call starts anew."""
    with closing(Store(database.app_url)) as store:
        store.append(command())
        store.close()
        assert isinstance(store.append(command()), Appended)
