"""Answers that are given before the body was read: every client sees them, and the next request is not harmed."""

import http.client
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.abuse.uploads import CLIENTS, Found, Round
from tests.races.clients import Connection
from tests.servers import RunningServer, serving
from tests.waiting import eventually

KIB, MIB = 1 << 10, 1 << 20
WAIT_S = 30.0
MANIFEST_MAX = 64 * KIB
BODIES = 6
OPTIONS = {
    "TAGTRAIL_WORKERS": "1",
    "TAGTRAIL_THREADS": "16",
    "TAGTRAIL_MANIFEST_BYTES_MAX": str(MANIFEST_MAX),
    "TAGTRAIL_UPLOAD_BODIES_TOTAL": str(BODIES),
    "TAGTRAIL_UPLOAD_GRACE_S": "1",
    "TAGTRAIL_READ_TIMEOUT_S": "1",
    "TAGTRAIL_APPEND_TIMEOUT_S": "1",
}
NONE = f"/v2/a/blobs/uploads/{'a' * 40}"
DIGEST = f"sha256:{'a' * 64}"
# A client sends its body in blocks of this size, each as soon as the buffers of the sockets take it.
BLOCK = b"x" * (64 * KIB)
SIZES = [1, KIB, 64 * KIB, 256 * KIB, MIB, MIB + 1, 8 * MIB]
KEPT_MAX = MIB
SEED = 20261127
UPLOADS = 10_000
# The number of uploads of each size in a hundred.
SHARES = {KIB: 20, 16 * KIB: 18, 64 * KIB: 18, 256 * KIB: 18, MIB: 12, 4 * MIB: 8, 11 * MIB: 4, 64 * MIB: 2}

# Method, path and status, by what is asked.
ANSWERS: dict[str, tuple[str, str, int]] = {
    "no such session": ("PATCH", NONE, 404),
    "no such session, closed": ("PUT", f"{NONE}?digest={DIGEST}", 404),
    "wrong name": ("POST", f"/v2/A/blobs/uploads/?digest={DIGEST}", 400),
    "wrong digest": ("POST", "/v2/a/blobs/uploads/?digest=nonsense", 400),
    "not the next chunk": ("PATCH", "{session}", 416),
    "a path of GET": ("PUT", "/v2/a/tags/list", 405),
    "no path": ("POST", "/nonsense", 404),
    "a check": ("GET", "/healthz", 200),
    "HEAD": ("HEAD", "/v2/", 200),
    "GET": ("GET", f"/v2/a/blobs/{DIGEST}", 404),
    "a list": ("GET", "/v2/_catalog", 200),
    "history": ("GET", "/api/v1/repositories/a/history", 404),
    "DELETE": ("DELETE", f"/v2/a/manifests/{DIGEST}", 404),
    "a session is started": ("POST", "/v2/a/blobs/uploads/", 202),
}


@dataclass
class Answered:
    """An answer, the connection that it came on, and whether it said that the connection will be closed."""

    status: int
    closes: bool
    text: bytes


class Raw:
    """A connection that sends what it is told and reads answers."""

    def __init__(self, server: RunningServer) -> None:
        host, _, port = server.host.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self._reader = self.socket.makefile("rb")

    def head(self, method: str, path: str, *headers: str, version: str = "1.1") -> None:
        """Send a head."""
        self.socket.sendall(
            "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode()
        )

    def body(self, size: int) -> None:
        """Send so many bytes."""
        while size:
            sent = min(size, len(BLOCK))
            self.socket.sendall(BLOCK[:sent])
            size -= sent

    def chunks(self, size: int) -> None:
        """Send so many bytes in chunks, and their end."""
        while size:
            sent = min(size, len(BLOCK))
            self.socket.sendall(b"%x\r\n%b\r\n" % (sent, BLOCK[:sent]))
            size -= sent
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self, method: str = "PUT") -> Answered:
        """Read the next answer, which may be a 100 Continue."""
        line = self._reader.readline().split()
        assert line, "the connection was closed without an answer"
        headers = http.client.parse_headers(self._reader)
        status = int(line[1])
        length = 0 if method == "HEAD" else int(headers.get("Content-Length", "0"))
        return Answered(status, headers.get("Connection") == "close", self._reader.read(length))

    def assert_goes_on(self, answered: Answered) -> None:
        """Check that the next request is served, or that the connection is closed as announced and without a reset."""
        if answered.closes:
            assert self._reader.read() == b""
        else:
            self.head("POST", "/v2/")
            assert self.answer().status == 405

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of one worker with few threads and small limits."""
    with serving(OPTIONS, "--no-access-log") as running:
        yield running


@pytest.fixture(scope="module")
def session(server: RunningServer) -> str:
    """An upload that has no bytes yet."""
    return Connection(server.host).ask("POST", "/v2/a/blobs/uploads/").headers["location"]


def exchange(
    server: RunningServer, method: str, path: str, size: int, *headers: str, chunked: bool = False
) -> Answered:
    """Send a whole body, then read the answer and see that the connection goes on as it says."""
    with Raw(server) as raw:
        raw.head(method, path, "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}", *headers)
        if chunked:
            raw.chunks(size)
        else:
            raw.body(size)
        answered = raw.answer(method)
        raw.assert_goes_on(answered)
        return answered


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_arrives_whatever_was_left_unread(server: RunningServer, session: str, name: str) -> None:
    """The client sends everything before it listens. Only a large rest of the body closes the connection."""
    method, path, status = ANSWERS[name]
    path = path.format(session=session)
    # A range far away from the end of the session's bytes.
    away = f"Content-Range: {MIB}-{2 * MIB}"
    for size in SIZES:
        answered = exchange(server, method, path, size, away)
        assert (answered.status, answered.closes) == (status, size > KEPT_MAX), size
    for size in SIZES:
        assert exchange(server, method, path, size, away, chunked=True).status == status, size


def test_a_manifest_that_is_too_large_is_told_so(server: RunningServer) -> None:
    """A body that says its length is refused by that, another one in its middle."""
    for size in (MANIFEST_MAX + 1, MIB, 8 * MIB):
        assert exchange(server, "PUT", "/v2/a/manifests/v1", size).status == 413, size
        assert exchange(server, "PUT", "/v2/a/manifests/v1", size, chunked=True).status == 413, size


def test_a_chunk_that_is_longer_than_it_says_is_told_so(server: RunningServer, session: str) -> None:
    """It is refused in its middle, and the session is as before."""
    for size in (2 * MIB, 8 * MIB):
        answered = exchange(server, "PATCH", session, size, f"Content-Range: 0-{MIB - 1}")
        assert (answered.status, answered.closes) == (400, size - MIB > KEPT_MAX)
    assert Connection(server.host).ask("GET", session).headers["range"] == "0-0"


def test_a_client_that_is_too_slow_is_told_so_and_may_go_on_sending(server: RunningServer, session: str) -> None:
    with Raw(server) as raw:
        raw.head("PATCH", session, f"Content-Length: {MIB}")
        raw.socket.settimeout(0.2)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            raw.body(1)
            try:
                if raw.socket.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        raw.socket.settimeout(WAIT_S)
        raw.body(64 * KIB)
        answered = raw.answer()
        assert (answered.status, answered.closes) == (408, True)


def test_a_client_with_one_body_too_many_is_told_so(server: RunningServer, session: str) -> None:
    """The answer is 429 while other clients hold all threads that may read bodies."""
    with ExitStack() as stack:
        for _ in range(BODIES):
            raw = stack.enter_context(Raw(server))
            raw.head("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", f"Content-Length: {MIB}", "Expect: 100-continue")
            assert raw.answer().status == 100
        for size in (KIB, 256 * KIB, 8 * MIB):
            answered = exchange(server, "PATCH", session, size)
            assert (answered.status, answered.closes) == (429, size > KEPT_MAX), size
            assert b"TOOMANYREQUESTS" in answered.text


def test_a_database_that_does_not_answer_is_told_of(server: RunningServer) -> None:
    """The answer is 503. It comes so late that the client has filled the buffers of the sockets before."""
    postgres = server.children()["postgres"]
    backends = [postgres, *(each for each in server.descendants() if each_of(postgres, each))]
    for each in backends:
        os.kill(each, signal.SIGSTOP)
    try:
        answers = [exchange(server, "PATCH", NONE, size) for size in (256 * KIB, 8 * MIB)]
    finally:
        for each in backends:
            os.kill(each, signal.SIGCONT)
    assert [each.status for each in answers] == [503, 503]
    eventually(lambda: exchange(server, "PATCH", NONE, KIB).status == 404, WAIT_S)


def each_of(parent: int, pid: int) -> bool:
    """True if a process is a child of another."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1]) == parent


def test_requests_that_were_sent_ahead_are_served(server: RunningServer) -> None:
    """A client sends a body that is refused and an innocent request in one write."""
    for size in (KIB, 64 * KIB, MIB):
        with Raw(server) as raw:
            head = f"PATCH {NONE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            raw.socket.sendall(head.encode() + b"x" * size + b"POST /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert [raw.answer().status, raw.answer().status] == [404, 405], size


def test_a_client_that_asks_before_sending_is_refused_without_being_told_to_send(server: RunningServer) -> None:
    """It gets a final answer that closes the connection, and no 100. If it sends nevertheless, it loses no answer."""
    for number in range(60):
        with Raw(server) as raw:
            raw.head("PUT", f"{NONE}?digest={DIGEST}", f"Content-Length: {8 * MIB}", "Expect: 100-continue")
            if number % 3 == 1:
                raw.body(8 * MIB)
            answered = raw.answer()
            assert (answered.status, answered.closes) == (404, True)
            if number % 3 == 2:
                raw.body(8 * MIB)
            elif number % 3 == 0:
                raw.socket.shutdown(socket.SHUT_WR)
            raw.assert_goes_on(answered)


def test_a_client_of_http_1_0_reads_to_the_end(server: RunningServer) -> None:
    for size in (KIB, 8 * MIB):
        with Raw(server) as raw:
            raw.head("PATCH", NONE, f"Content-Length: {size}", version="1.0")
            raw.body(size)
            assert raw.answer().status == 404
            assert raw.socket.recv(1) == b""


def test_a_client_that_falls_silent_has_its_answer_and_keeps_nobody_out(server: RunningServer) -> None:
    """There are more such clients than threads that read what is left of bodies."""
    with ExitStack() as stack:
        for _ in range(3 * BODIES):
            raw = stack.enter_context(Raw(server))
            raw.head("PATCH", NONE, f"Content-Length: {KIB}")
            raw.body(10)
            assert raw.answer().status == 404
        assert Connection(server.host).ask("GET", "/v2/").status == 200
        assert Connection(server.host).ask("POST", "/v2/a/blobs/uploads/").status == 202
    eventually(lambda: not exchange(server, "PATCH", NONE, 64 * KIB).closes, WAIT_S, "no thread has come free")


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_sees_its_refusals(server: RunningServer, name: str) -> None:
    """Several clients send at once, bodies that fit into the buffers of the sockets and bodies that do not."""
    rounds = [Round(KIB, 8), Round(256 * KIB, 24), Round(12 * MIB, 4), Round(256 * KIB, 12, chunked=True)]
    for each in rounds:
        assert CLIENTS[name](server.host, each) == Found(each.count, 0, 0, ""), each


@pytest.mark.slow
def test_ten_thousand_refused_uploads_lose_no_answer_and_harm_nobody() -> None:
    """Clients of every kind send 1 KiB to 64 MiB at once, most bodies small, to a server with its defaults."""
    chance = random.Random(SEED)
    with serving() as running, ThreadPoolExecutor(len(CLIENTS)) as pool:
        found: dict[str, Found] = dict.fromkeys(CLIENTS, Found(0, 0, 0, ""))
        for size, share in SHARES.items():
            count = UPLOADS * share // 100 // len(CLIENTS) + 1
            given = {name: Round(size, count, chunked=chance.random() < 0.3) for name in CLIENTS}
            sent = {name: pool.submit(ask, running.host, given[name]) for name, ask in CLIENTS.items()}
            for name, each in sent.items():
                found[name] += each.result()
            print(f"{size}: {found}", flush=True)
        assert sum(each.answered for each in found.values()) >= UPLOADS
        assert {name: (each.lost, each.harmed, each.first) for name, each in found.items()} == dict.fromkeys(
            CLIENTS, (0, 0, "")
        )
