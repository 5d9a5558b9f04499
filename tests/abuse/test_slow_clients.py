"""Clients that are slow, silent or too many are refused in time, and others are served meanwhile.

bench/slow_clients.py measures how fast others are served.
"""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.abuse.readers import closed_if_it_fails
from tests.api import image, sha256
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, serving
from tests.waiting import eventually

REPOSITORY = "abuse/slow"
LAYER = b"a layer"
DATA = b"0123456789" * 1000
CONNECTIONS = 150
BODIES = 24
IDLE_TIMEOUT_S = 3
IDLE = 100
SLOW = 20
WAIT_S = 60.0
OPTIONS = {
    "TAGTRAIL_WORKERS": "1",
    "TAGTRAIL_THREADS": "40",
    "TAGTRAIL_CONNECTIONS": str(CONNECTIONS),
    "TAGTRAIL_IDLE_TIMEOUT_S": str(IDLE_TIMEOUT_S),
    "TAGTRAIL_UPLOAD_BODIES_TOTAL": str(BODIES),
    "TAGTRAIL_UPLOAD_GRACE_S": "1",
}

UNFINISHED = {
    "silent": b"",
    "half a line": b"GET /v2/ HT",
    "half a head": b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Endless: " + b"x" * 100,
    "kept open": b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningServer]:
    """A server that waits for slow clients only for a short time, with an image in it."""
    with serving(OPTIONS, "--no-access-log") as server:
        push(server, "v1")
        yield server


def push(server: RunningServer, tag: str) -> None:
    """Push an image as a client that is not slow."""
    api = Connection(server.host)
    assert put_whole_blob(api, REPOSITORY, LAYER) == 201
    assert put_manifest(api, REPOSITORY, tag, image(LAYER)).status == 201


def connect(server: RunningServer) -> socket.socket:
    """A plain connection."""
    host, _, port = server.host.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def session(server: RunningServer) -> str:
    """Open an upload session; answers its location."""
    return Connection(server.host).ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]


def begin(server: RunningServer, path: str, *headers: str) -> socket.socket:
    """Send the head of an upload and nothing of its body; answers the connection."""
    head = [f"PATCH {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(DATA)}", *headers, "", ""]
    with closed_if_it_fails(connect(server)) as made:
        made.sendall("\r\n".join(head).encode())
    return made


def silent(server: RunningServer, path: str) -> socket.socket:
    """Send the head of an upload and wait until the server waits for the body; answers the connection."""
    with closed_if_it_fails(begin(server, path, "Expect: 100-continue")) as made:
        assert made.recv(1000).startswith(b"HTTP/1.1 100")
    return made


def refusal(connection: socket.socket) -> http.client.HTTPResponse:
    """The answer, once it is there."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer


def code(answer: http.client.HTTPResponse) -> str:
    """The code in the body of an error."""
    return str(json.loads(answer.read())["errors"][0]["code"])


def finish(server: RunningServer, path: str) -> None:
    """Take a session up again from where it stands, on another connection."""
    api = Connection(server.host)
    stands = api.ask("GET", path)
    assert (stands.status, stands.headers["range"]) == (204, "0-0")
    assert api.ask("PUT", f"{path}?digest={sha256(DATA)}", DATA).status == 201


def test_others_are_served_beside_idle_and_slow_ones_and_the_slow_ones_may_try_again(strict: RunningServer) -> None:
    paths = [session(strict) for _ in range(SLOW)]
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connect(strict))
        slow = [stack.enter_context(begin(strict, path)) for path in paths]
        api = Connection(strict.host)
        for each in slow:
            # Each byte a while after the one before, for as long as it takes to be refused.
            each.settimeout(0)
        answered = list[socket.socket]()
        deadline = time.monotonic() + WAIT_S
        while len(answered) < SLOW and time.monotonic() < deadline:
            for each in slow:
                with contextlib.suppress(OSError):
                    each.send(b"x")
                with contextlib.suppress(BlockingIOError):
                    if each not in answered and each.recv(1, socket.MSG_PEEK):
                        answered.append(each)
            assert api.ask("GET", f"/v2/{REPOSITORY}/manifests/v1").status == 200
            time.sleep(0.2)
        push(strict, "v2")
        for each in slow:
            each.settimeout(WAIT_S)
            answer = refusal(each)
            assert (answer.status, code(answer)) == (408, "BLOB_UPLOAD_INVALID")
    for path in paths:
        finish(strict, path)


def test_the_session_of_a_silent_client_goes_on_once_that_is_gone(strict: RunningServer) -> None:
    path = session(strict)
    other = f"{path}?digest={sha256(DATA)}"
    with silent(strict, path):
        assert Connection(strict.host).ask("PUT", other, DATA).status == 416
    eventually(lambda: Connection(strict.host).ask("PUT", other, DATA).status == 201, WAIT_S)


def test_more_bodies_than_may_be_open_are_told_429_and_when_to_try_again(strict: RunningServer) -> None:
    path, waiting = session(strict), [session(strict) for _ in range(BODIES)]
    with ExitStack() as stack:
        for each in waiting:
            stack.enter_context(silent(strict, each))
        refused = Connection(strict.host).ask("PATCH", path, b"more")
        assert (refused.status, refused.json()["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
        assert int(refused.headers["retry-after"]) > 0
        assert Connection(strict.host).ask("GET", f"/v2/{REPOSITORY}/manifests/v1").status == 200
    eventually(lambda: Connection(strict.host).ask("PATCH", path, b"more").status == 202, WAIT_S)


def test_connections_that_send_no_whole_head_are_closed_in_time(strict: RunningServer) -> None:
    with ExitStack() as stack:
        idle = {name: stack.enter_context(connect(strict)) for name in UNFINISHED}
        for name, sent in UNFINISHED.items():
            idle[name].sendall(sent)
        for each in idle.values():
            # Raises TimeoutError if the server keeps the connection for longer than it was told to.
            while each.recv(65536):
                pass


def test_a_head_that_comes_byte_by_byte_has_no_more_time(strict: RunningServer) -> None:
    with connect(strict) as slow, pytest.raises(OSError, match=r"pipe|reset"):
        send_slowly(slow)


def send_slowly(connection: socket.socket) -> None:
    """Send a byte each tenth of a second for a long while; raises OSError once the connection is closed."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        connection.sendall(b"G")
        time.sleep(0.1)


def test_connections_beyond_the_limit_wait_until_idle_ones_are_closed(strict: RunningServer) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS + 50):
            stack.enter_context(connect(strict))
        assert Connection(strict.host).ask("GET", f"/v2/{REPOSITORY}/manifests/v1").status == 200


def test_the_kernel_looks_after_connections_whose_client_may_have_vanished(strict: RunningServer) -> None:
    with connect(strict) as client:
        ours, theirs = client.getsockname()[1], client.getpeername()[1]
        eventually(lambda: timer(theirs, ours) == "02", WAIT_S, "no keep-alive timer runs")


def timer(local: int, remote: int) -> str | None:
    """The timer that the kernel runs for a connection, as /proc/net/tcp has it: 02 is keep-alive's."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            row = line.split()
            if [int(each.rpartition(":")[2], 16) for each in row[1:3]] == [local, remote]:
                return row[5].partition(":")[0]
    return None
