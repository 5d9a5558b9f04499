"""Appends through the appender of a server: batches of many processes, and what happens when either side dies."""

import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import psycopg
import pytest

from eventstore.appender import wire
from eventstore.appender.wire import Status
from eventstore.codec import encode_command
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.schema import APPEND_LOCK
from eventstore.store import Store
from eventstore.types import Appended, AppendRejected, Command, Exact, Refused, StoreUnavailable
from tagtrail.storing import open_board
from tests.eventstore.appending import Appender, an_appender
from tests.eventstore.boards import KEY, kept_by
from tests.eventstore.making import command, event
from tests.eventstore.test_board import rows
from tests.postgres import Database
from tests.waiting import eventually

DEADLINE_S = 60.0
_WAITING = (
    "SELECT count(*)::integer FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'tagtrail-append' AND wait_event_type = 'Lock'"
)
# As the database itself says it when a file cannot grow.
_REFUSE_WRITES = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON log.es_event FOR EACH STATEMENT EXECUTE FUNCTION public.refuse();
"""


@contextmanager
def store_of(database: Database, appender: Appender, timeout_s: float = DEADLINE_S) -> Iterator[Store]:
    """The store of a process that appends through it."""
    with closing(Store(database.app_url, append_timeout_s=timeout_s, appender=appender.path)) as store:
        yield store


class Peer:
    """A connection to the appender whose every byte is ours."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def ask(self, what: Command, wait_s: float = DEADLINE_S, hello: bytes = wire.HELLO) -> "Peer":
        """Send a command."""
        text = encode_command(what, DEFAULT_PARTITIONS)
        self.socket.sendall(hello + wire.encode_request(text, time.monotonic() + wait_s, (), (0,)))
        return self

    def answer(self) -> wire.Reply:
        """The answer to it."""
        received = b""
        while (reply := wire.decode_reply(received.removeprefix(wire.HELLO))) is None:
            came = self.socket.recv(1 << 16)
            assert came, "the appender closed the connection"
            received += came
        return reply

    def is_closed(self) -> bool:
        """True once the appender has closed it; waits for that."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True


@contextmanager
def peer_of(appender: Appender) -> Iterator[Peer]:
    """Such a connection, closed afterwards."""
    made = Peer(appender.path)
    with made.socket:
        yield made


@contextmanager
def lock_held(database: Database) -> Iterator[psycopg.Connection]:
    """Nobody can append meanwhile; the connection that holds the lock."""
    with psycopg.connect(database.admin_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s, 0)", (APPEND_LOCK,))
        yield holder


def wait_for_call(holder: psycopg.Connection) -> None:
    """Until a call waits for the lock."""
    eventually(lambda: holder.execute(_WAITING).fetchone() == (1,))


def streams(database: Database) -> list[str]:
    """The streams of all events, in order."""
    return [str(each) for (each,) in rows(database, "SELECT stream FROM log.es_event ORDER BY position")]


def test_what_many_processes_send_during_a_call_shares_the_next_one(database: Database) -> None:
    """They have one connection to the database together."""
    with ExitStack() as stack:
        appender = stack.enter_context(an_appender(database.app_url))
        peers = [stack.enter_context(peer_of(appender)) for _ in range(32)]
        with lock_held(database) as holder:
            peers[0].ask(command(event("first")))
            wait_for_call(holder)
            for number, each in enumerate(peers[1:]):
                each.ask(command(event(f"s{number}")))
        assert {each.answer().status for each in peers} == {Status.ANSWERED}
        named = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        assert [name for (name,) in rows(database, named) if "append" in str(name)] == ["tagtrail-append"]
    assert rows(database, "SELECT count(*), count(DISTINCT xmin::text) FROM log.es_event") == [(32, 2)]


def test_outcomes_are_those_of_a_process_that_appends_by_itself(database: Database) -> None:
    """Appended, repeated, refused, rejected."""
    with (
        an_appender(database.app_url) as appender,
        store_of(database, appender) as store,
        closing(Store(database.app_url)) as direct,
    ):
        given = command(event("a", ref="x"))
        first = store.append(given)
        assert isinstance(first, Appended)
        assert store.append(given) == direct.append(given) == replace(first, repeated=True)
        stale = command(event("a", Exact(7)))
        refused = store.append(stale)
        assert isinstance(refused, Refused)
        assert refused == direct.append(stale)
        early = command(event("b"), now=datetime.now(UTC) + timedelta(hours=1))
        assert error_of(store, early) == error_of(direct, early)
    assert streams(database) == ["a"]


def error_of(store: Store, what: Command) -> str:
    """The message of a command that is rejected."""
    with pytest.raises(AppendRejected) as raised:
        store.append(what)
    return str(raised.value)


def test_a_killed_appender_leaves_its_commands_appended_once(database: Database) -> None:
    """They are asked for again of its successor, which has the place on the board where they may be under way."""
    with ExitStack() as stack:
        server = stack.enter_context(kept_by(database, lease_s=DEADLINE_S))
        appender = stack.enter_context(an_appender(database.app_url, server.path))
        board = open_board(server.path)
        assert board is not None
        stack.callback(board.close)
        store = Store(database.app_url, append_timeout_s=DEADLINE_S, appender=appender.path, board=board)
        stack.enter_context(closing(store))
        pool = stack.enter_context(ThreadPoolExecutor(3))
        assert isinstance(store.append(command(event("before", key=KEY))), Appended)
        with lock_held(database) as holder:
            sent = pool.submit(store.append, command(event("sent", key=KEY)))
            wait_for_call(holder)
            queued = pool.submit(store.append, command(event("queued", key=KEY)))
            appender.kill()
            assert board.ticket(KEY) is None
            appender.start()
        outcomes = [each.result(DEADLINE_S) for each in (sent, queued)]
        assert [type(each) for each in outcomes] == [Appended, Appended]
        assert isinstance(outcomes[0], Appended)
        # The backend waited for the lock before its successor did, and went on when its client was dead.
        assert outcomes[0].repeated
        assert board.ticket(KEY) is not None
        assert rows(database, "SELECT place, epoch FROM log.es_writer") == [(3, 2)]
    assert sorted(streams(database)) == ["before", "queued", "sent"]


def test_pushes_go_on_while_the_appender_is_killed_again_and_again(database: Database) -> None:
    """Every command is appended once, and each caller is told so."""
    kills, ended = 5, Event()

    def push(number: int) -> list[str]:
        done: list[str] = []
        while not ended.is_set():
            name = f"s{number}-{len(done)}"
            assert isinstance(store.append(command(event(name))), Appended)
            done.append(name)
        return done

    with ExitStack() as stack:
        appender = stack.enter_context(an_appender(database.app_url))
        store = stack.enter_context(store_of(database, appender))
        pool = stack.enter_context(ThreadPoolExecutor(8))
        stack.callback(ended.set)
        pushing = [pool.submit(push, number) for number in range(8)]
        for _ in range(kills):
            enough = store.head() + 16
            eventually(partial(lambda least: store.head() > least or any(each.done() for each in pushing), enough))
            appender.kill()
            appender.start()
        ended.set()
        told = [name for each in pushing for name in each.result(DEADLINE_S)]
    assert sorted(streams(database)) == sorted(told)


def test_what_nobody_waits_for_any_more_is_not_appended(database: Database) -> None:
    """Neither a command whose time is over nor that of a process that has ended."""
    with ExitStack() as stack:
        appender = stack.enter_context(an_appender(database.app_url))
        first, late, gone, last = (stack.enter_context(peer_of(appender)) for _ in range(4))
        with lock_held(database) as holder:
            first.ask(command(event("first")))
            wait_for_call(holder)
            late.ask(command(event("late")), wait_s=0.1)
            over = time.monotonic() + 0.1
            gone.ask(command(event("gone"))).socket.close()
            last.ask(command(event("last")))
            eventually(lambda: time.monotonic() > over, what="the end of the late one's time")
        refused = late.answer()
        assert (refused.status, refused.body) == (
            Status.UNAVAILABLE,
            "the append could not begin in time; nothing was appended",
        )
        assert last.answer().status is Status.ANSWERED
    assert streams(database) == ["first", "last"]


def test_who_is_told_to_end_finishes_what_it_was_given(database: Database) -> None:
    """It ends once nobody is connected."""
    with ExitStack() as stack:
        appender = stack.enter_context(an_appender(database.app_url))
        first, second = (stack.enter_context(peer_of(appender)) for _ in range(2))
        with lock_held(database) as holder:
            first.ask(command(event("first")))
            wait_for_call(holder)
            second.ask(command(event("second")))
            appender.processes[-1].send_signal(signal.SIGTERM)
        assert {each.answer().status for each in (first, second)} == {Status.ANSWERED}
        for each in (first, second):
            each.socket.close()
        assert appender.processes[-1].wait(DEADLINE_S) == 0
    assert streams(database) == ["first", "second"]


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        wire.HELLO[:-1] + b"\xff" + wire.encode_request("{}", 1e18, (), (0,)),
        wire.HELLO + wire.REQUEST.pack(wire.REQUEST_BYTES_MAX + 1, 1e18, 1, 0),
        wire.HELLO + wire.REQUEST.pack(4, 1e18, 1, 1 << 30),
        wire.HELLO + wire.REQUEST.pack(1, 1e18, 1, 0) + b"\xff",
        wire.HELLO + wire.REQUEST.pack(2, 1e18, 0, 0) + b"[]",
        wire.HELLO + 2 * wire.encode_request("[]", 1e18, (), (0,)),
    ],
)
def test_who_does_not_keep_to_the_protocol_is_cut_off(database: Database, said: bytes) -> None:
    """So is a process of another version. Others go on."""
    with an_appender(database.app_url) as appender, peer_of(appender) as bad, peer_of(appender) as good:
        bad.socket.sendall(said)
        assert bad.is_closed()
        assert good.ask(command(event("good"))).answer().status is Status.ANSWERED
    assert streams(database) == ["good"]


def test_a_full_disk_of_the_database_is_known_to_those_who_append(database: Database) -> None:
    """After the first command that was not appended for it, in the words of the database and without its statements."""
    with (
        an_appender(database.app_url) as appender,
        store_of(database, appender, timeout_s=3.0) as store,
        psycopg.connect(database.admin_url, autocommit=True) as admin,
    ):
        assert isinstance(store.append(command(event("before"))), Appended)
        admin.execute(_REFUSE_WRITES)
        with pytest.raises(StoreUnavailable) as raised:
            store.append(command(event("refused")))
        assert store.write_problem() == "no space left"
        assert str(raised.value) == "the append did not end in time: no space left"
        admin.execute("DROP TRIGGER refuse ON log.es_event")
        assert isinstance(store.append(command(event("after"))), Appended)
        assert store.write_problem() is None
    assert streams(database) == ["before", "after"]


def test_an_appender_that_hangs_is_known_until_it_answers(database: Database) -> None:
    """A process whose writes come to nothing for it says so, as with a full disk."""
    with an_appender(database.app_url) as appender, store_of(database, appender, timeout_s=3.0) as store:
        assert isinstance(store.append(command(event("before"))), Appended)
        assert store.write_problem() is None
        appender.processes[-1].send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            store.append(command(event("unknown")))
        assert store.write_problem() == "the appender gives no answer"
        appender.processes[-1].send_signal(signal.SIGCONT)
        assert isinstance(store.append(command(event("after"))), Appended)
        assert store.write_problem() is None


def test_without_files_for_more_connections_those_that_are_there_go_on(database: Database) -> None:
    """Others wait until there are some again."""
    with an_appender(database.app_url) as appender, peer_of(appender) as there, ThreadPoolExecutor(1) as pool:
        assert there.ask(command(event("first"))).answer().status is Status.ANSWERED
        process = appender.processes[-1].pid
        resource.prlimit(process, resource.RLIMIT_NOFILE, (1, 1 << 10))
        try:
            with peer_of(appender) as late:
                answer = pool.submit(late.ask(command(event("late"))).answer)
                for number in range(3):
                    assert there.ask(command(event(f"s{number}")), hello=b"").answer().status is Status.ANSWERED
                assert not answer.done()
                resource.prlimit(process, resource.RLIMIT_NOFILE, (1 << 10, 1 << 10))
                assert answer.result(DEADLINE_S).status is Status.ANSWERED
        finally:
            resource.prlimit(process, resource.RLIMIT_NOFILE, (1 << 10, 1 << 10))
    assert streams(database) == ["first", "s0", "s1", "s2", "late"]
