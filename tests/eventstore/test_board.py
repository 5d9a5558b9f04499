"""The right to append while a server keeps answers: leases, places and their epochs in the database."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import psycopg
import pytest

from eventstore.board import registrar
from eventstore.board.registrar import LogKept, Registrar
from eventstore.schema import APPEND_LOCK
from eventstore.store import Store
from eventstore.types import AppendRejected, Expand, StoreUnavailable
from tagtrail.storing import open_board
from tests.eventstore.boards import KEY, LEASE_S, append, kept_by, member
from tests.eventstore.making import command
from tests.postgres import Database
from tests.waiting import eventually

_WAITING = (
    "SELECT count(*)::integer FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'tagtrail-append' AND wait_event_type = 'Lock'"
)
_processes = multiprocessing.get_context("fork")


@contextmanager
def stranger(database: Database, timeout_s: float = 0.5) -> Iterator[Store]:
    """A store that knows of no board."""
    store = Store(database.app_url, append_timeout_s=timeout_s)
    try:
        yield store
    finally:
        store.close()


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    """The rows that the administrator sees."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        return admin.execute(query).fetchall()


@contextmanager
def in_a_process(work: Callable[[Connection], None]) -> Iterator[tuple[int, Connection]]:
    """Run `work` in another process, which is killed at the end of the block; gives its pid and our end of a pipe."""
    ours, its = _processes.Pipe()
    process = _processes.Process(target=work, args=(its,), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid, ours
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_an_append_of_one_process_ends_what_another_keeps(database: Database) -> None:
    """An append to a stream on which no answer depends does not."""
    with (
        kept_by(database) as server,
        member(database, server.path) as (store, _),
        member(database, server.path) as (_, reader),
    ):
        ticket = reader.ticket(KEY)
        assert ticket is not None
        for each in ("upload-1", "repo-you/app", "blob-sha256:1"):
            append(store, each)
            assert reader.holds(KEY, ticket), each
        append(store, "tag-1")
        assert not reader.holds(KEY, ticket)
        assert reader.ticket(KEY) is not None


def test_a_stream_apart_is_a_key_of_its_own(database: Database) -> None:
    """Answers kept of it end with its events alone, and those kept of their key do not."""
    with (
        kept_by(database) as server,
        member(database, server.path) as (store, _),
        member(database, server.path) as (_, reader),
    ):
        tickets = {key: reader.ticket(key) for key in (KEY, "link-1", "link-2")}

        def held() -> list[str]:
            return [key for key, ticket in tickets.items() if ticket is not None and reader.holds(key, ticket)]

        append(store, "link-1")
        assert held() == [KEY, "link-2"]
        append(store, "tag-1")
        assert held() == ["link-2"]


def test_an_event_to_unknown_streams_apart_is_refused(database: Database) -> None:
    """Nobody could say beforehand what it changes."""
    gone = command(Expand("live", "link-you/", KEY, "Gone", 1, "{}", "digest"))
    with (
        kept_by(database) as server,
        member(database, server.path) as (store, _),
        pytest.raises(AppendRejected, match="not known before"),
    ):
        store.append(gone)


def test_who_does_not_share_the_board_cannot_append(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot while the lease runs, and can as soon as the server has ended."""
    with stranger(database) as store:
        with kept_by(database):
            with pytest.raises(StoreUnavailable):
                append(store)
            assert store.head() == 0
            assert "has this log to itself" in caplog.text
        append(store)
        assert store.head() == 1


def test_a_second_server_waits_for_a_lease_and_does_not_start_beside_a_renewed_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead server's lease is waited for; the same owner's earlier board is replaced at once."""
    with kept_by(database, "one", lease_s=6.0) as server:
        with pytest.raises(LogKept, match="single-node"):
            Registrar(database.app_url, "two", places=1, lease_s=LEASE_S).start()
        with pytest.raises(LogKept, match="single-node"):
            registrar.renounce(database.app_url, "two")
        # One that lives would take the board back, in turns with the other one of its owner.
        monkeypatch.setattr(server, "_renew", lambda _: None)
        with kept_by(database, "one"), member(database, server.path) as (old, board):
            eventually(lambda: board.ticket(KEY) is None)
            with pytest.raises(StoreUnavailable), stranger(database) as store:
                append(store)
            old.close()


def test_a_lease_that_ran_out_is_lost_to_the_first_who_appends(database: Database) -> None:
    """A server that was stopped for longer: its readers keep and use nothing meanwhile, then it registers anew."""

    def serve(pipe: Connection) -> None:
        with kept_by(database) as server:
            pipe.send(server.path)
            pipe.recv()

    with in_a_process(serve) as (pid, pipe), member(database, pipe.recv()) as (store, board):
        append(store)
        ticket = board.ticket(KEY)
        assert ticket is not None
        os.kill(pid, signal.SIGSTOP)
        with stranger(database, timeout_s=10.0) as other:
            append(other)
            assert not board.holds(KEY, ticket)
            assert board.ticket(KEY) is None
            os.kill(pid, signal.SIGCONT)
            eventually(lambda: board.ticket(KEY) is not None)
            assert not board.holds(KEY, ticket), "what was kept before others appended"
            append(store)
            assert other.head() == 3


def test_a_restored_database_makes_the_server_forget(database: Database) -> None:
    """Its log may hold other events at the same positions."""
    with kept_by(database) as server, member(database, server.path) as (_, board):
        ticket = board.ticket(KEY)
        assert ticket is not None
        rows(database, "UPDATE log.es_log SET system_identifier = 'another' RETURNING 1")
        eventually(lambda: board.ticket(KEY) is not None and not board.holds(KEY, ticket))


def test_a_place_that_was_taken_over_is_refused_and_claimed_again(database: Database) -> None:
    """The epoch in the database refuses late appends of the epoch before; the client notices nothing."""
    with kept_by(database) as server, member(database, server.path) as (store, board):
        append(store)
        (name,) = rows(database, "SELECT board FROM log.es_board")[0]
        with psycopg.connect(database.app_url, autocommit=True) as connection:
            claimed = connection.execute("SELECT log.es_claim_place(0::smallint, %s, 0::smallint)", (name,)).fetchone()
        assert claimed == (2,)
        append(store)
        assert store.head() == 2
        assert rows(database, "SELECT place, epoch FROM log.es_writer") == [(0, 3)]
        assert board.ticket(KEY) is not None


def test_what_a_killed_process_left_waiting_in_the_database_makes_no_answer_stale(database: Database) -> None:
    """Its backend waits for the append lock, and commits after its client is dead."""

    def write(pipe: Connection) -> None:
        with member(database, pipe.recv()) as (store, _):
            append(store)
            pipe.send("appended once")
            pipe.recv()
            append(store)

    with kept_by(database) as server, member(database, server.path) as (reader, board), in_a_process(write) as writer:
        pid, pipe = writer
        assert reader.head() == 0, "its place is taken before the writer's"
        pipe.send(server.path)
        assert pipe.recv() == "appended once"
        eventually(lambda: board.ticket(KEY) is not None)
        with psycopg.connect(database.app_url) as blocker:
            blocker.execute("SELECT pg_advisory_xact_lock(%s, 0)", (APPEND_LOCK,))
            pipe.send("append")
            eventually(lambda: rows(database, _WAITING) == [(1,)])
            os.kill(pid, signal.SIGKILL)
            # Its place is free for the successor once it is dead, which is some time after the signal.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        eventually(lambda: reader.head() == 2)
        assert board.ticket(KEY) is None, "nobody on the board knows the outcome of the dead process's append"
        with member(database, server.path) as (successor, _):
            append(successor)
            assert board.ticket(KEY) is not None
            assert reader.stream_state("s").version == 3


def test_places_are_never_shared(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """More processes than places: the last cannot append, until one has ended. The appender's is left free for it."""
    with kept_by(database) as server, member(database, server.path) as (first, _), ExitStack() as later:
        with member(database, server.path) as (second, _), member(database, server.path) as (third, _):
            for each in (first, second, third):
                append(each)
            assert rows(database, "SELECT place FROM log.es_writer ORDER BY place") == [(0,), (1,), (2,)]
            fourth, _ = later.enter_context(member(database, server.path, append_timeout_s=0.3))
            with pytest.raises(StoreUnavailable):
                append(fourth)
            assert "all 3 places of the board are taken" in caplog.text
            appenders = open_board(server.path, for_all=True)
            assert appenders is not None
            later.callback(appenders.close)
            with psycopg.connect(database.app_url, autocommit=True) as connection:
                appenders.writer.claim(connection)
            assert appenders.writer.identity[1] == 3
        append(fourth)
