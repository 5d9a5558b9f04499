"""Connections that are closed with a body unread end without a reset, and no other connection is read from."""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tagtrail.server import sockets
from tagtrail.server.lingering import ANSWER_S, PER_REQUEST_MAX, READ_S, SILENT_S, Lingering
from tagtrail.server.listing import Listing
from tests.waiting import eventually

PEER = "127.0.0.1"
BODY = bytes(4 << 20)


class Place:
    """A listener whose connections may be held, with a clock of its own; they are read only when a test says so."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server((PEER, 0)))
        self.now = 0.0
        self.lingering = Lingering(self._listener.getsockname()[1], lambda: self.now, reads=False)
        stack.callback(self.let_go)

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """The server's end and the client's."""
        client = self._stack.enter_context(socket.create_connection(self._listener.getsockname()))
        served, _ = self._listener.accept()
        return self._stack.enter_context(served), client

    def let_go(self) -> None:
        """Let so much time pass that no connection is held any more."""
        self.now += 10 * (ANSWER_S + READ_S)
        self.lingering.read_all()
        assert len(self.lingering) == 0


@pytest.fixture
def place() -> Iterator[Place]:
    """A place whose connections are all closed at the end."""
    with ExitStack() as stack:
        yield Place(stack)


def close_as_the_server_does(served: socket.socket, answer: bytes = b"answer") -> None:
    """Answer, shut down and close, with what has come left unread."""
    served.sendall(answer)
    served.shutdown(socket.SHUT_WR)
    served.close()


def test_a_client_that_sends_everything_first_sees_its_answer(place: Place) -> None:
    served, client = place.connection()
    place.lingering.hold(PEER)
    close_as_the_server_does(served)
    client.setblocking(False)
    left = memoryview(BODY)

    def all_sent() -> bool:
        nonlocal left
        place.lingering.read_all()
        try:
            left = left[client.send(left) :]
        except BlockingIOError:
            return False
        return not left

    eventually(all_sent)
    client.setblocking(True)
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    client.close()

    def let_go() -> bool:
        place.lingering.read_all()
        return len(place.lingering) == 0

    eventually(let_go)


def test_bytes_that_the_server_still_reads_are_left_to_it(place: Place) -> None:
    served, client = place.connection()
    place.lingering.hold(PEER)
    client.sendall(b"of another request")
    place.lingering.read_all()
    assert served.recv(100) == b"of another request"
    place.now += ANSWER_S
    place.lingering.read_all()
    assert len(place.lingering) == 0
    served.sendall(b"still served")
    assert client.recv(100) == b"still served"


@pytest.mark.parametrize("sends", [False, True])
def test_a_client_is_not_read_from_for_ever(place: Place, *, sends: bool) -> None:
    served, client = place.connection()
    place.lingering.hold(PEER)
    close_as_the_server_does(served)
    while place.now < (ANSWER_S + READ_S if sends else SILENT_S) - 2:
        place.lingering.read_all()
        assert len(place.lingering) == 1
        place.now += 1
        if sends:
            client.sendall(b"more")
    place.now += 3
    place.lingering.read_all()
    assert len(place.lingering) == 0


def test_the_few_connections_of_an_address_that_received_something_last_are_held(place: Place) -> None:
    both = [place.connection() for _ in range(PER_REQUEST_MAX + 1)]
    other = Lingering(1, lambda: 0.0, reads=False)
    other.hold(PEER)
    place.lingering.hold("127.0.0.2")
    assert (len(other), len(place.lingering)) == (0, 0)
    place.lingering.hold(PEER)
    place.lingering.hold(PEER)
    assert len(place.lingering) == PER_REQUEST_MAX
    for served, _ in both:
        assert served.fileno() > 0


def test_threads_that_ask_at_the_same_time_share_a_listing_that_began_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of open files costs more with each file, so threads share one."""
    listing, began_at = Listing(), list[int]()
    real_files = sockets.files

    def files_noting_when() -> list[int]:
        began_at.append(listing.moment())
        return real_files()

    monkeypatch.setattr(sockets, "files", files_noting_when)
    ends = {each.fileno() for each in place.connection()}
    one, another = listing.moment(), listing.moment()
    assert set(listing.files_of(PEER, one)) >= ends
    assert set(listing.files_of(PEER, another)) >= ends
    assert len(began_at) == 1
    # A request that comes while a listing is made may have opened a connection that the listing lacks.
    later = {each.fileno() for each in place.connection()}
    assert set(listing.files_of(PEER, began_at[0])) >= ends | later
    assert len(began_at) == 2


def test_a_listing_that_fails_serves_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next thread that asks makes a new listing."""

    def no_file_is_free() -> list[int]:
        raise OSError(errno.EMFILE, "none")

    listing = Listing()
    one, another = listing.moment(), listing.moment()
    ends = {each.fileno() for each in place.connection()}
    with monkeypatch.context() as patch:
        patch.setattr(sockets, "files", no_file_is_free)
        with pytest.raises(OSError, match="none"):
            listing.files_of(PEER, one)
    assert set(listing.files_of(PEER, another)) >= ends


def test_other_threads_run_while_many_files_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert list(sockets.in_slices(range(1000))) == list(range(1000))
    assert len(pauses) == 10
