"""The store while its database crashes, restarts and ends connections, and while its own process forks or breaks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from eventstore import verify
from eventstore.combiner import EXIT_STATUS
from eventstore.store import Store
from eventstore.types import Appended, StoreUnavailable
from tests.eventstore.making import command, event
from tests.postgres import Database
from tests.waiting import eventually

DEADLINE_S = 60.0


def test_acknowledged_appends_outlive_a_crash_of_the_database(database: Database) -> None:
    """A backend is killed with -9 under load, all of Postgres recovers; the stores go on by themselves."""
    store = Store(database.app_url, append_timeout_s=2 * DEADLINE_S)
    acknowledged: list[tuple[str, int]] = []
    stop = threading.Event()

    def write(number: int) -> None:
        while not stop.is_set():
            given = command(event(f"s{number}"), event("shared"))
            outcome = store.append(given)
            assert isinstance(outcome, Appended)
            acknowledged.append((given.id, outcome.last_position))

    with closing(store), ThreadPoolExecutor(8) as pool:
        store.append(command(event("first")))
        writers = [pool.submit(write, number) for number in range(8)]
        try:
            for _ in range(2):
                wait_for(acknowledged, len(acknowledged) + 50)
                os.kill(append_backend(database), signal.SIGKILL)
            wait_for(acknowledged, len(acknowledged) + 50)
        finally:
            stop.set()
        for each in writers:
            each.result()
        last = max(position for _, position in acknowledged)
        assert len({position for _, position in acknowledged}) == len(acknowledged)
        # Each command has two events and was appended once, repeated or not.
        assert store.head() == last == 1 + 2 * len(acknowledged)
    assert verify.verify(database.app_url) == []


def append_backend(database: Database) -> int:
    """The process of Postgres that serves the combiner of a store over this database."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(database.admin_url, autocommit=True) as admin:
                row = admin.execute(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE application_name = 'tagtrail-append' AND datname = current_database()"
                ).fetchone()
        except psycopg.OperationalError:
            continue
        if row is not None:
            return int(row[0])
    raise AssertionError("no connection appends")


def wait_for(growing: Sequence[object], length: int) -> None:
    """Wait until the sequence is longer than `length`; raises AssertionError if that takes too long."""
    eventually(lambda: len(growing) > length, DEADLINE_S, lambda: len(growing))


def test_a_reader_survives_the_end_of_all_its_connections(database: Database) -> None:
    """A question whose connection was lost is asked again on another one."""
    with closing(Store(database.app_url, pool_size=4)) as store:
        store.append(command(event("a")))
        readers = [threading.Thread(target=store.head) for _ in range(8)]
        for each in readers:
            each.start()
        for each in readers:
            each.join()
        for _ in range(5):
            with psycopg.connect(database.admin_url, autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert store.head() == 1
        assert isinstance(store.append(command(event("a"))), Appended)


def test_a_database_that_refuses_writes_is_unavailable(database: Database) -> None:
    """A standby refuses so. Appends raise StoreUnavailable, and go on when writes are taken again."""
    with closing(Store(database.app_url, append_timeout_s=0.5)) as store:
        store.append(command(event("a")))
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
            os.kill(append_backend(database), signal.SIGTERM)
            with pytest.raises(StoreUnavailable):
                store.append(command(event("a")))
            assert store.head() == 1
            admin.execute(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")
        assert isinstance(store.append(command(event("a"))), Appended)


BROKEN = """
import sys
from datetime import UTC, datetime
from eventstore.store import Store
from eventstore.types import Cause, Command, NewEvent

class Broken:
    def execute(self, *arguments, **options):
        raise ValueError("a bug of our own")

store = Store(sys.argv[1], append_connect=Broken)
store.append(Command("id", Cause("a", "r"), datetime.now(UTC), (NewEvent("s", "k", "Happened", 1, "{}"),)))
"""


def test_a_dead_combiner_ends_its_process(database: Database) -> None:
    """Nobody else would answer those who wait; the log says why."""
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN, database.app_url], capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == EXIT_STATUS
    assert b"a bug of our own" in ended.stderr


FORKED = """
import os, sys
from datetime import UTC, datetime
from eventstore.store import Store
from eventstore.types import Cause, Command, NewEvent

store = Store(sys.argv[1])

def append(name):
    store.append(Command(name, Cause("a", "r"), datetime.now(UTC), (NewEvent(name, "k", "Happened", 1, "{}"),)))

append("parent before")
child = os.fork()
if child == 0:
    append("child")
    os._exit(0)
_, status = os.waitpid(child, 0)
append("parent after")
store.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_store_works_on_both_sides_of_a_fork(database: Database) -> None:
    """Threads and connections belong to one process; the child opens its own."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, database.app_url],
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    with closing(Store(database.app_url)) as store:
        assert [each.stream for each in store.read_log(0, 10)] == ["parent before", "child", "parent after"]
