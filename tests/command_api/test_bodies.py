"""Request bodies: read within bounded memory, a minimum rate, and a bounded number of open ones."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from command_api.bodies import (
    READ_BYTES_MAX,
    BodyIncomplete,
    BodyLimits,
    BodyTooSlow,
    content_length,
    has_body,
    read_body,
)
from command_api.gates import WorkGate

LIMITS = BodyLimits(rate_min_bytes_per_s=1000, grace_s=10)
MIB = 1024 * 1024


@dataclass
class Client:
    """Sends `size` bytes, at each rate until its position is reached. Reads block as the server's do."""

    size: int
    rates: list[tuple[int, float]]
    now: float = 0.0
    sent: int = 0
    asked: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def read(self, size: int) -> bytes:
        self.asked.append(size)
        take = min(size, self.size - self.sent)
        end = self.sent + take
        for until, rate in self.rates:
            part = max(0, min(until, end) - self.sent)
            self.sent += part
            self.now += part / rate
        return b"x" * take


def client(size: int, *rates: tuple[int, float]) -> Client:
    return Client(size, list(rates))


def environ(source: object, length: int | None = None, **more: str) -> dict[str, Any]:
    made: dict[str, Any] = {"wsgi.input": source, "SERVER_PROTOCOL": "HTTP/1.1", **more}
    if length is not None:
        made["CONTENT_LENGTH"] = str(length)
    return made


def read_all(sender: Client, length: int | None = None, limits: BodyLimits = LIMITS) -> list[bytes]:
    more = {} if length is not None else {"HTTP_TRANSFER_ENCODING": "chunked"}
    return list(read_body(environ(sender, length, **more), limits, sender.clock))


FOREVER = 1 << 62


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1040, 3 * MIB + 5])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_comes_whole_in_bounded_blocks(size: int, chunked: bool) -> None:
    sender = client(size, (FOREVER, 1e9))
    blocks = read_all(sender, None if chunked else size)
    assert sum(map(len, blocks)) == size
    assert all(1 <= len(block) <= READ_BYTES_MAX for block in blocks)


def test_a_fast_client_is_soon_read_in_large_blocks() -> None:
    sender = client(4 * MIB, (FOREVER, 1e9))
    read_all(sender, 4 * MIB)
    assert len(sender.asked) <= 4 * MIB // READ_BYTES_MAX + 4
    assert max(sender.asked) == READ_BYTES_MAX


def test_a_fast_client_is_read_up_to_multiples_of_a_large_block() -> None:
    """Blocks are written as they are read, and the system takes those that begin at such places with less work."""
    sender = client(4 * MIB, (FOREVER, 1e9))
    ends = list(itertools.accumulate(map(len, read_all(sender, 4 * MIB))))
    assert [end for end in ends if end >= READ_BYTES_MAX] == list(range(READ_BYTES_MAX, 4 * MIB + 1, READ_BYTES_MAX))


def test_no_read_asks_for_more_than_is_left_of_a_known_length() -> None:
    """A read beyond the end would wait for a client that has nothing more to send."""
    sender = client(100, (FOREVER, 1e9))
    read_all(sender, 100)
    assert sum(sender.asked) == 100


@pytest.mark.parametrize("rate", [1, 10, 100, 990])
def test_a_client_below_the_minimum_rate_is_refused_soon_after_its_grace(rate: float) -> None:
    sender = client(10 * MIB, (FOREVER, rate))
    with pytest.raises(BodyTooSlow):
        read_all(sender, 10 * MIB)
    fair = LIMITS.grace_s / (1 - rate / LIMITS.rate_min_bytes_per_s)
    assert fair - 0.1 <= sender.now <= fair + 16


def test_a_client_at_the_minimum_rate_may_take_as_long_as_it_needs() -> None:
    sender = client(400_000, (FOREVER, 1001))
    assert sum(map(len, read_all(sender, 400_000))) == 400_000
    assert sender.now > 390


def test_a_fast_start_does_not_pay_for_a_crawl_later() -> None:
    sender = client(20 * MIB, (10 * MIB, 1e8), (FOREVER, 100))
    with pytest.raises(BodyTooSlow):
        read_all(sender)
    in_flight = READ_BYTES_MAX / 100
    assert sender.now <= in_flight + 1


def test_a_pause_within_the_grace_is_forgiven_and_reads_grow_again() -> None:
    sender = client(20 * MIB, (4 * MIB, 1e8), (4 * MIB + 900, 100), (FOREVER, 1e8))
    assert sum(map(len, read_all(sender))) == 20 * MIB
    assert sender.asked[-2] == READ_BYTES_MAX


def test_a_body_that_is_complete_is_never_too_slow() -> None:
    sender = client(16, (FOREVER, 0.1))
    assert b"".join(read_all(sender, 16)) == b"x" * 16
    assert b"".join(read_all(client(5, (FOREVER, 0.1)))) == b"x" * 5


def test_what_we_do_with_a_block_does_not_count_against_the_client() -> None:
    sender = client(5000, (FOREVER, 1e6))
    received = 0
    for block in read_body(environ(sender, 5000), LIMITS, sender.clock):
        sender.now += 60
        received += len(block)
    assert received == 5000


def test_a_rate_of_zero_allows_any() -> None:
    sender = client(100, (FOREVER, 0.01))
    assert sum(map(len, read_all(sender, 100, BodyLimits(rate_min_bytes_per_s=0)))) == 100


def test_a_body_shorter_than_its_length_is_incomplete() -> None:
    for came in (0, 7, 16, 40):
        sender = client(came, (FOREVER, 1e9))
        with pytest.raises(BodyIncomplete, match=f"{came} of 50"):
            read_all(sender, 50)


def test_a_chunked_body_that_breaks_off_ends() -> None:
    """The server shows no difference; digests decide whether it is complete."""
    assert sum(map(len, read_all(client(40, (FOREVER, 1e9))))) == 40


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": ""}, False),
        ({"CONTENT_LENGTH": "0"}, False),
        ({"CONTENT_LENGTH": "1"}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
        ({"CONTENT_LENGTH": "0", "HTTP_TRANSFER_ENCODING": "chunked"}, True),
    ],
)
def test_a_request_has_a_body_if_its_length_or_encoding_says_so(given: dict[str, str], expected: bool) -> None:
    assert has_body({"SERVER_PROTOCOL": "HTTP/1.1", **given}) is expected


def test_without_a_body_nothing_is_read() -> None:
    """A read of a body that the server does not have could block."""
    assert list(read_body({"SERVER_PROTOCOL": "HTTP/1.1"}, LIMITS)) == []


def test_chunks_rule_over_a_length() -> None:
    assert content_length({"CONTENT_LENGTH": "3"}) == 3
    assert content_length({"CONTENT_LENGTH": "3", "HTTP_TRANSFER_ENCODING": "chunked"}) is None
    sender = client(5, (FOREVER, 1e9))
    both = environ(sender, 3, HTTP_TRANSFER_ENCODING="chunked")
    assert b"".join(read_body(both, LIMITS, sender.clock)) == b"x" * 5


def test_the_work_gate_lets_so_many_in_and_no_more() -> None:
    gate = WorkGate(2)
    inside = threading.Semaphore(0)
    leave = threading.Event()

    def work() -> None:
        with gate:
            inside.release()
            leave.wait(60)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        assert inside.acquire(timeout=60)
        assert inside.acquire(timeout=60)
        assert not inside.acquire(timeout=0.05)
    finally:
        leave.set()
    assert inside.acquire(timeout=60)
    for each in threads:
        each.join()


# With the real server: what its wsgi.input does is measured, not documented.

APPLICATION = """
import json
from command_api.bodies import BodyError, BodyLimits, read_body
LIMITS = BodyLimits(rate_min_bytes_per_s=1000, grace_s=0.5)
def application(environ, start_response):
    received, largest, problem = 0, 0, None
    try:
        for block in read_body(environ, LIMITS):
            received += len(block)
            largest = max(largest, len(block))
    except BodyError as each:
        problem = type(each).__name__
    if environ["PATH_INFO"] == "/told":
        print(problem, received, flush=True)
    told = json.dumps({"received": received, "largest": largest, "problem": problem}).encode()
    status = "408 Request Timeout" if problem == "BodyTooSlow" else "200 OK"
    start_response(status, [("Content-Length", str(len(told))), ("Connection", "close")])
    return [told]
"""


@dataclass
class Server:
    port: int
    process: "subprocess.Popen[str]"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def told(self) -> str:
        """The next line that the application printed."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            if not line.startswith("["):
                return line.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bodies")
    (folder / "bodies_application.py").write_text(APPLICATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--blocking-threads", "8", "--no-ws", "bodies_application:application"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield Server(port, process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    raw = b""
    while block := connection.recv(65536):
        raw += block
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(*headers: str, path: str = "/") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def test_granian_hands_over_a_body_of_known_length_and_a_chunked_one(server: Server) -> None:
    size = 3 * MIB + 7
    with server.connect() as connection:
        connection.sendall(post(f"Content-Length: {size}") + b"x" * size)
        assert answer(connection) == (200, {"received": size, "largest": READ_BYTES_MAX, "problem": None})
    with server.connect() as connection:
        connection.sendall(post("Transfer-Encoding: chunked") + b"5\r\nhello\r\n" * 3 + b"0\r\n\r\n")
        assert answer(connection) == (200, {"received": 15, "largest": 15, "problem": None})


def test_granian_lets_the_transfer_encoding_rule_over_a_length(server: Server) -> None:
    """It also closes the connection."""
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 3", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n")
        assert answer(connection)[1]["received"] == 5


def test_a_client_that_goes_away_leaves_an_incomplete_body(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 5000", path="/told") + b"x" * 100)
    assert server.told() == "BodyIncomplete 100"


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 5", "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"hello")
        assert answer(connection)[1]["received"] == 5


def test_a_slow_client_is_told_408_while_it_still_sends(server: Server) -> None:
    """A pace, not a wait for consistency: 16 bytes at one in 50 ms use up the grace of half a second."""
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 5000"))
        for _ in range(16):
            connection.sendall(b"x")
            time.sleep(0.05)
        status, told = answer(connection)
    assert (status, told["problem"]) == (408, "BodyTooSlow")
