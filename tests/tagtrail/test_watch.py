"""Connections of clients that take too little are cut off in time, and no others."""

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagtrail.server import sockets
from tagtrail.server.connections import SLOW, STALLED, Limits, Watch, look_at_all
from tagtrail.server.silence import BodyWatch, Patience
from tagtrail.server.sockets import Connection
from tagtrail.waits import BodyWaits
from tests.waiting import eventually

LIMITS = Limits(stall_s=100, rate_min_bytes=10)


def at(acknowledged: int, *, waiting: int = 10_000, cookie: bytes = b"c") -> Connection:
    """The findings of one look."""
    return Connection(5, cookie, acknowledged, waiting)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0, 7), (99, 7)], None, id="not yet"),
        pytest.param([(0, 7), (100, 7)], STALLED, id="nothing"),
        pytest.param([(0, 7), (50, 500), (100, 1006)], SLOW, id="a byte too few"),
        pytest.param([(0, 7), (100, 1007), (199, 1007)], None, id="enough, and new time"),
        pytest.param([(0, 7), (100, 1007), (200, 1007)], STALLED, id="enough, then nothing"),
        pytest.param([(0, 7), (1, 10**9), (101, 10**9)], STALLED, id="a fast stretch pays for no stall"),
    ],
)
def test_a_client_must_take_enough_in_any_time_in_which_something_waits(
    looks: list[tuple[float, int]], expected: str | None
) -> None:
    watch = Watch(LIMITS)
    assert [watch.judge(at(taken), now) for now, taken in looks] == [None] * (len(looks) - 1) + [expected]


def test_without_a_rate_one_byte_is_enough() -> None:
    watch = Watch(Limits(100, 0))
    assert [watch.judge(at(taken), now) for now, taken in [(0, 7), (100, 8), (199, 8), (200, 8)]] == [
        None,
        None,
        None,
        STALLED,
    ]


def test_a_connection_for_which_nothing_waits_has_its_time_anew() -> None:
    watch = Watch(LIMITS)
    assert watch.judge(at(7), 0) is None
    assert watch.judge(at(7, waiting=0), 90) is None
    assert len(watch) == 0
    assert watch.judge(at(7), 110) is None
    assert watch.judge(at(7), 209) is None
    assert watch.judge(at(7), 210) is STALLED


def test_a_client_that_takes_by_each_look_what_waited_at_the_last_one_is_not_slow() -> None:
    """Such a client asks for one small thing after the other from far away, so something is always under way."""
    watch = Watch(LIMITS)
    assert [watch.judge(at(taken, waiting=30), 5 * taken / 30) for taken in range(0, 3000, 30)] == [None] * 100
    assert watch.judge(at(2970, waiting=30), 594) is None
    assert watch.judge(at(2970, waiting=30), 595) is STALLED


def test_a_connection_that_has_ended_is_forgotten() -> None:
    watch = Watch(LIMITS)
    watch.judge(at(7, cookie=b"a"), 0)
    watch.judge(at(7, cookie=b"b"), 10)
    watch.forget_unseen(5)
    assert len(watch) == 1


def nobody() -> BodyWatch:
    """A watch of bodies in which no read waits."""
    return BodyWatch(Patience(60, 1, 85), BodyWaits(), period_s=5)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        with client, served:
            yield served, client


def fill(served: socket.socket) -> int:
    """Send until the kernel takes no more; answers how many bytes."""
    served.setblocking(False)
    sent = 0
    try:
        while True:
            sent += served.send(bytes(1 << 20))
    except BlockingIOError:
        served.setblocking(True)
    return sent


def test_the_kernel_tells_what_waits_and_what_was_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    served, client = pair
    before = sockets.look(served.fileno())
    assert before is not None
    assert before.waiting == 0
    sent = fill(served)
    after = sockets.look(served.fileno())
    assert after is not None
    assert after.waiting > 0
    assert after.acknowledged > before.acknowledged
    # They are two questions to the kernel, between which the peer may take some.
    assert after.acknowledged + after.waiting <= before.acknowledged + sent
    assert after.cookie == before.cookie
    other = sockets.look(client.fileno())
    assert other is not None
    assert other.cookie != before.cookie


def test_the_kernel_tells_what_came_and_what_is_left_unread(pair: tuple[socket.socket, socket.socket]) -> None:
    served, client = pair
    client.sendall(bytes(1000))
    served.recv(300, socket.MSG_WAITALL)
    found = sockets.look(served.fileno())
    assert found is not None
    assert (found.received, found.unread) == (1000, 700)
    assert sockets.peer_address(served.fileno()) == "127.0.0.1"


def test_a_client_that_may_not_have_read_all_that_it_took_sees_no_reset(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    served, client = pair
    served.sendall(b"an answer")

    def taken() -> sockets.Connection | None:
        found = sockets.look(served.fileno())
        return found if found is not None and not found.waiting else None

    seen = eventually(taken)
    assert seen is not None
    assert sockets.cut_off(seen) == "127.0.0.1"
    served.close()
    assert client.recv(100) == b"an answer"
    assert client.recv(100) == b""


def test_descriptors_of_no_connection_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as local,
        (tmp_path / "file").open() as file,
    ):
        for each in (listener.fileno(), local.fileno(), file.fileno(), 99_999):
            assert sockets.look(each) is None


def test_a_connection_is_cut_off_unless_its_number_is_another_ones_by_now(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    served, client = pair
    seen = sockets.look(served.fileno())
    assert seen is not None
    mistaken = Connection(client.fileno(), seen.cookie, 0, waiting=1)
    assert sockets.cut_off(mistaken) is None
    client.sendall(b"still there")
    assert served.recv(100) == b"still there"
    assert sockets.cut_off(seen) == "127.0.0.1"
    with pytest.raises(OSError, match=r"pipe|reset"):
        served.sendall(b"gone")
    assert client.recv(100) == b""


def test_only_connections_that_arrived_on_the_port_are_cut_off_and_no_file_is_left_open(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    served, client = pair
    fill(served)
    port = served.getsockname()[1]
    before = len(sockets.files())
    watch = Watch(Limits(0, 0))
    look_at_all(watch, nobody(), port + 1)
    look_at_all(watch, nobody(), port + 1)
    assert len(watch) == 0
    look_at_all(watch, nobody(), port)
    assert len(watch) == 1
    look_at_all(watch, nobody(), port)
    with pytest.raises(OSError, match=r"pipe|reset"):
        served.sendall(b"gone")
    assert len(sockets.files()) == before
    assert client.fileno() > 0


def test_the_watch_goes_on_where_no_descriptor_is_free(pair: tuple[socket.socket, socket.socket]) -> None:
    served, _ = pair
    fill(served)
    port = served.getsockname()[1]
    watch = Watch(Limits(0, 0))
    look_at_all(watch, nobody(), port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        look_at_all(watch, nobody(), port)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(watch) == 1
    look_at_all(watch, nobody(), port)
    with pytest.raises(OSError, match=r"pipe|reset"):
        served.sendall(b"gone")
