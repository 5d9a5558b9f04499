"""The side of those who append through an appender, which is played here: what it says decides what they do."""

import errno
import json
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from eventstore.appender import wire
from eventstore.appender.client import UNDER_WAY_MAX, AppenderClient
from eventstore.appender.outage import KEPT_S, Outage
from eventstore.appender.server import listen
from eventstore.appender.wire import Status
from eventstore.combiner import Combiner
from eventstore.disk_space import DiskSpace
from eventstore.store import Store
from eventstore.types import Appended, AppendRejected, StoreUnavailable
from tests.eventstore.making import command, event
from tests.eventstore.test_board import rows
from tests.postgres import Database
from tests.waiting import eventually

DEADLINE_S = 60.0
OTHER_VERSION = wire.HELLO[:-1] + b"\xff"
LOST = b""


@dataclass
class Played:
    """An appender that says for each request, whoever sends it, what comes next in its part; LOST closes.

    It greets with `hello`, and once it has lost a connection with `then`.
    """

    path: Path
    says: list[bytes]
    hello: bytes = wire.HELLO
    then: bytes = wire.HELLO
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: list[socket.socket] = field(default_factory=list)

    def end(self) -> None:
        """Close what is open, as the end of its process does; the next one greets with `then`."""
        self.hello = self.then
        for each in self.connections:
            each.shutdown(socket.SHUT_RDWR)

    def serve(self, connection: socket.socket) -> None:
        """One connection, until it is closed."""
        with connection:
            self.connections.append(connection)
            connection.sendall(self.hello)
            if self.hello != wire.HELLO:
                # It cuts off whom it does not understand, however much that one has to say.
                connection.recv(len(wire.HELLO))
                return
            received = b""
            while came := connection.recv(1 << 16):
                received = (received + came).removeprefix(wire.HELLO)
                if wire.request_bytes(received) == len(received):
                    with self.lock:
                        self.asked.append(wire.decode_request(received)[0])
                        said = self.says.pop(0) if self.says else None
                    received = b""
                    if said == LOST:
                        self.hello = self.then
                        return
                    if said is not None:
                        connection.sendall(said)


@contextmanager
def played(says: Sequence[bytes], hello: bytes = wire.HELLO, then: bytes = wire.HELLO) -> Iterator[Played]:
    """It serves until the end."""
    with tempfile.TemporaryDirectory(prefix="tt-app-", dir="/tmp") as folder, listen(Path(folder) / "s") as listener:
        made = Played(Path(folder) / "s", list(says), hello, then)
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                if not running:
                    connection.close()
                    return
                threads.append(threading.Thread(target=made.serve, args=(connection,)))
                threads[-1].start()

        running = True
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield made
        finally:
            running = False
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(str(made.path))
            accepting.join()
            for each in threads:
                each.join()


@contextmanager
def client_of(
    appender: Played, disk: DiskSpace | None = None, sessions: list[int] | None = None
) -> Iterator[AppenderClient]:
    """A client that never appends by itself."""

    def direct() -> Combiner:
        raise AssertionError("it appends by itself")

    def on_session() -> None:
        if sessions is not None:
            sessions.append(len(appender.asked))

    made = AppenderClient(appender.path, disk or DiskSpace(), Outage(), direct=direct, on_session=on_session)
    try:
        yield made
    finally:
        made.close(DEADLINE_S)


def answered(session: int = 1) -> bytes:
    """An answer."""
    return wire.encode_answer({"n": session}, session)


def test_the_same_command_is_sent_again_until_its_outcome_is_known() -> None:
    with played([LOST, LOST, answered(7)]) as appender, client_of(appender) as client:
        assert client.append("text", DEADLINE_S) == {"n": 7}
        assert appender.asked == ["text"] * 3


def test_what_an_appender_that_has_ended_left_open_is_not_used_again(database: Database) -> None:
    """One of another release that comes after it has the whole process append by itself, and no command fails."""
    with (
        played([answered()] * 8, then=OTHER_VERSION) as appender,
        closing(Store(database.app_url, appender=appender.path)) as store,
        ThreadPoolExecutor(8) as pool,
    ):
        client = store._opened.get().appends
        assert isinstance(client, AppenderClient)
        list(pool.map(lambda each: client.append(each, DEADLINE_S), "12345678"))
        appender.end()
        outcomes = list(pool.map(lambda each: store.append(command(event(each))), "abcdefgh"))
        assert [type(each) for each in outcomes] == [Appended] * 8


def test_errors_are_those_that_it_tells() -> None:
    """And a disk of the database that is full is known until a write goes through."""
    full = wire.encode_failure(Status.UNAVAILABLE, "not in time", 1, "no space left")
    bad = wire.encode_failure(Status.REJECTED, "bad command", 1, None)
    disk = DiskSpace()
    with played([full, bad, answered()]) as appender, client_of(appender, disk) as client:
        with pytest.raises(StoreUnavailable, match="not in time"):
            client.append("1", DEADLINE_S)
        assert disk.problem == "no space left"
        with pytest.raises(AppendRejected, match="bad command"):
            client.append("2", DEADLINE_S)
        assert disk.problem == "no space left"
        client.append("3", DEADLINE_S)
        assert disk.problem is None


def test_a_new_session_of_the_database_is_told() -> None:
    """The log may be another one from then on, of which a process knows nothing."""
    sessions: list[int] = []
    with played([answered(1), answered(1), answered(2)]) as appender, client_of(appender, None, sessions) as client:
        for text in "abc":
            client.append(text, DEADLINE_S)
    assert sessions == [1, 3]


def test_nobody_waits_longer_than_its_time() -> None:
    """For an answer that does not come, or for the turn of a process that has enough under way."""
    with played([]) as appender, client_of(appender) as client, ThreadPoolExecutor(UNDER_WAY_MAX + 1) as pool:
        waiting = [pool.submit(client.append, "text", 3.0) for _ in range(UNDER_WAY_MAX)]
        eventually(lambda: len(appender.asked) == UNDER_WAY_MAX)
        with pytest.raises(StoreUnavailable, match="nothing was appended"):
            client.append("one too many", 0.1)
        for each in waiting:
            with pytest.raises(StoreUnavailable, match="outcome is unknown"):
                each.result()
        assert appender.asked == ["text"] * UNDER_WAY_MAX


def test_nobody_there_is_told_as_nothing_appended() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        client_alone = Played(Path(folder) / "none", [])
        with client_of(client_alone) as client, pytest.raises(StoreUnavailable, match="nothing was appended"):
            client.append("text", 0.2)


def test_without_an_appender_of_this_release_a_process_appends_by_itself(database: Database) -> None:
    with played([], OTHER_VERSION) as appender, closing(Store(database.app_url, appender=appender.path)) as store:
        for each in ("a", "b"):
            assert isinstance(store.append(command(event(each))), Appended)
    assert rows(database, "SELECT stream FROM log.es_event ORDER BY position") == [("a",), ("b",)]


def test_a_large_command_finds_out_too_that_the_appender_is_of_another_release(database: Database) -> None:
    """It is larger than what a socket takes that nobody reads."""
    filler = json.dumps({"filler": "x" * 2000})
    large = command(*(event(f"s{number}", data=filler) for number in range(250)))
    with played([], OTHER_VERSION) as appender, closing(Store(database.app_url, appender=appender.path)) as store:
        assert isinstance(store.append(large), Appended)


def test_a_successor_that_appended_nothing_does_not_know_what_became_of_a_command() -> None:
    """It may be under way from the one before, so its outcome is told as unknown."""
    nothing = wire.encode_failure(Status.UNAVAILABLE, "not in time; nothing was appended", 1, None)
    with played([LOST, nothing]) as appender, client_of(appender) as client:
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            client.append("text", DEADLINE_S)
        assert appender.asked == ["text"] * 2


def test_an_appender_that_gives_no_answers_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is asked, and so is the end of that."""
    caplog.set_level("INFO")
    with played([LOST, LOST, LOST, answered(), answered()]) as appender, client_of(appender) as client:
        client.append("1", DEADLINE_S)
        client.append("2", DEADLINE_S)
    told = [each.getMessage() for each in caplog.records if each.name == "eventstore.appender.outage"]
    assert len(told) == 2
    assert told[0].startswith("the appender gave no answer, asking again: ")
    assert told[1] == "the appender answers again"


def test_a_command_without_an_answer_counts_for_a_while() -> None:
    """Else a process to which nobody is led any more would never find out that it is answered again."""
    now = 0.0
    outage = Outage(lambda: now)
    outage.missed(OSError("lost"))
    assert outage.problem is None, "there is time to ask again"
    outage.gave_up()
    now = KEPT_S
    assert outage.problem == "the appender gives no answer"
    now += 1
    assert outage.problem is None


def test_a_time_that_is_over_already_is_no_other_error() -> None:
    with played([]) as appender, client_of(appender) as client, pytest.raises(StoreUnavailable, match="nothing was"):
        client.append("text", -0.5)


def test_without_files_for_a_connection_nothing_was_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is told, and not as an outcome that is unknown."""

    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with played([]) as appender, client_of(appender) as client, monkeypatch.context() as patched:
        patched.setattr("eventstore.appender.client.socket.socket", none_left)
        with pytest.raises(StoreUnavailable, match="nothing was appended"):
            client.append("text", 0.2)


def test_what_an_appender_of_another_release_may_not_know_is_not_appended_elsewhere(database: Database) -> None:
    """An append at a place of its own could overtake the one that is still under way."""
    with (
        played([LOST], then=OTHER_VERSION) as appender,
        closing(Store(database.app_url, appender=appender.path)) as store,
        pytest.raises(StoreUnavailable, match="outcome is unknown"),
    ):
        store.append(command(event("a")))
    assert rows(database, "SELECT count(*) FROM log.es_event") == [(0,)]
