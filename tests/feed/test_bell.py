"""A wait for the log ends with an append, and an append between the last look and the sleep is not missed."""

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from eventstore.feed.bell import CHANNEL, Bell
from eventstore.feed.waking import Stop
from projections.engine import runner
from projections.projector import project
from tests.api import Registry
from tests.eventstore.making import append_batch, command, event
from tests.feed.running import thread as running
from tests.folded import wait_folded
from tests.postgres import Database
from tests.waiting import eventually

FOR_EVER_S = 180.0
JOIN_MAX_S = 60.0
# Files from this number on are too many for select(2).
FD_SETSIZE = 1024


@pytest.fixture
def listener(database: Database) -> Iterator[psycopg.Connection]:
    """A connection that waits."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def writer(database: Database) -> Iterator[psycopg.Connection]:
    """A connection that appends."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        yield connection


def waiting(made: Bell, stop: Stop, timeout_s: float = FOR_EVER_S) -> threading.Thread:
    """Start a thread that waits with this bell; answers the thread."""
    thread = threading.Thread(target=made.wait, args=(stop, timeout_s))
    thread.start()
    return thread


def test_an_append_rings_the_bell(listener: psycopg.Connection, writer: psycopg.Connection) -> None:
    """An append between the last look and the sleep rings too."""
    made, stop = Bell(listener), Stop()
    made.wait(stop, FOR_EVER_S)  # the first call only begins to listen, so that the caller looks once more
    append_batch(writer, [command(event("a"))])
    made.wait(stop, FOR_EVER_S)
    thread = waiting(made, stop)
    append_batch(writer, [command(event("b"))])
    thread.join(JOIN_MAX_S)
    assert not thread.is_alive()


def test_a_command_that_appends_nothing_rings_no_bell(listener: psycopg.Connection, writer: psycopg.Connection) -> None:
    """A repeated command appends nothing. A process that has something to do does not listen."""
    given = command(event("a"))
    append_batch(writer, [given])
    made, stop = Bell(listener), Stop()
    made.wait(stop)
    append_batch(writer, [given])
    began = time.monotonic()
    made.wait(stop, 0.7)
    assert time.monotonic() - began >= 0.7
    made.leave()
    assert listener.execute("SELECT pg_listening_channels()").fetchall() == []


def test_a_bell_waits_with_more_open_files_than_select_takes(database: Database, writer: psycopg.Connection) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        while stack.enter_context(open(os.devnull, "rb")).fileno() < FD_SETSIZE:
            pass
        listener = stack.enter_context(psycopg.connect(database.app_url, autocommit=True))
        assert listener.fileno() > FD_SETSIZE
        made, stop = Bell(listener), Stop()
        made.wait(stop, FOR_EVER_S)
        append_batch(writer, [command(event("a"))])
        made.wait(stop, FOR_EVER_S)


def test_another_thread_ends_the_wait_that_is_under_way_or_the_next_one(listener: psycopg.Connection) -> None:
    made, stop = Bell(listener), Stop()
    made.wait(stop)
    thread = waiting(made, stop)
    made.wake()
    thread.join(JOIN_MAX_S)
    assert not thread.is_alive()
    made.wake()
    made.wake()
    made.wait(stop, FOR_EVER_S)
    began = time.monotonic()
    made.wait(stop, 0.2)
    assert time.monotonic() - began >= 0.2


def test_a_stop_ends_the_wait(listener: psycopg.Connection) -> None:
    """It ends although nothing rings, and also if the stop comes before the wait."""
    made, stop = Bell(listener), Stop()
    made.wait(stop)
    thread = waiting(made, stop)
    stop.set()
    thread.join(JOIN_MAX_S)
    assert not thread.is_alive()
    made.wait(stop, FOR_EVER_S)


def test_a_lost_connection_ends_the_wait(listener: psycopg.Connection, database: Database) -> None:
    """The next statement says what is wrong with it."""
    made, stop = Bell(listener), Stop()
    made.wait(stop)
    thread = waiting(made, stop)
    with psycopg.connect(database.admin_url, autocommit=True) as admin_connection:
        admin_connection.execute("SELECT pg_terminate_backend(%s)", (listener.info.backend_pid,))
    thread.join(JOIN_MAX_S)
    assert not thread.is_alive()
    with pytest.raises(psycopg.OperationalError):
        listener.execute("SELECT 1")


def test_an_idle_projector_sleeps_and_is_woken(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks nothing while nothing happens, and folds the next push long before it would look by itself."""
    monkeypatch.setattr(runner, "QUIET_S", 0.1)
    monkeypatch.setattr(Bell.wait, "__defaults__", (FOR_EVER_S,))
    looks: list[float] = []
    look = runner._Follower._look

    def counted(follower: runner._Follower) -> None:
        looks.append(time.monotonic())
        look(follower)

    monkeypatch.setattr(runner._Follower, "_look", counted)
    stop = Stop()
    thread = threading.Thread(target=project, args=(database.app_url, stop))
    thread.start()
    try:
        for number in range(3):
            eventually(lambda: bool(looks) and time.monotonic() - looks[-1] > 1.0, what="it never slept")
            registry.push("u/app", f"t{number}", b"layer")
            wait_folded(database.app_url, registry.head_position(), timeout_s=FOR_EVER_S / 3)
    finally:
        stop.set()
        thread.join(JOIN_MAX_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("statement", [f"LISTEN {CHANNEL}", f"UNLISTEN {CHANNEL}"])
def test_a_projector_outlives_a_connection_that_is_lost_as_it_begins_or_ends_to_listen(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """The driver raises its own error there; the projector connects again and folds on."""
    monkeypatch.setattr(runner, "QUIET_S", 0.1)
    run, listening, lost = Bell._run, threading.Event(), threading.Event()

    def losing(made: Bell, given: str) -> None:
        if given == statement and not lost.is_set():
            lost.set()
            with psycopg.connect(database.admin_url, autocommit=True) as admin_connection:
                admin_connection.execute("SELECT pg_terminate_backend(%s)", (made._connection.info.backend_pid,))
        run(made, given)
        listening.set()

    monkeypatch.setattr(Bell, "_run", losing)
    with running(project, database.app_url):
        eventually(lambda: lost.is_set() or listening.is_set(), what="it never listened")
        registry.push("u/app", "t", b"layer")
        wait_folded(database.app_url, registry.head_position(), timeout_s=JOIN_MAX_S)
    assert lost.is_set()
