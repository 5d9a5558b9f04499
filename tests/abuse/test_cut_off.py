"""Clients that do not take what they asked for are cut off, logged and counted; others are not."""

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.abuse.readers import WAIT_S, ask, begin, stalled
from tests.races.clients import Connection, put_whole_blob
from tests.servers import RunningServer, serving
from tests.waiting import eventually

REPOSITORY = "abuse/cut"
STALL_S = 3
RATE = 100_000
CONTENT = bytes(range(256)) * 64 * 1024
PATH = f"/v2/{REPOSITORY}/blobs/sha256:{hashlib.sha256(CONTENT).hexdigest()}"
OPTIONS = {
    "TAGTRAIL_WORKERS": "1",
    "TAGTRAIL_DOWNLOAD_STALL_S": str(STALL_S),
    "TAGTRAIL_DOWNLOAD_RATE_MIN_BYTES": str(RATE),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server that cuts slow readers off soon, with a blob of 16 MiB in it."""
    with serving(OPTIONS, "--no-access-log") as running:
        assert put_whole_blob(Connection(running.host), REPOSITORY, CONTENT) == 201
        yield running


def is_told(server: RunningServer, address: str, reason: str) -> bool:
    """True if the log tells that a client was cut off, and why."""
    lines = [line for line in server.log.read_text().splitlines() if "was cut off" in line]
    return any(f"address={address} " in line and f"reason={reason} " in line for line in lines)


def cuts(server: RunningServer, reason: str) -> float:
    """The number of clients that were cut off for this reason, as /metrics counts them."""
    return server.metrics().get(f'tagtrail_connections_cut_total{{reason="{reason}"}}', 0)


def read_until_it_ends(reader: socket.socket) -> int:
    """Read until the connection ends; answers the bytes that came. The server's kernel throws waiting ones away."""
    received = 0
    try:
        while block := reader.recv(1 << 20):
            received += len(block)
    except ConnectionResetError:
        pass
    return received


def test_a_client_that_stalls_is_cut_off(server: RunningServer) -> None:
    with stalled(server, PATH, "127.6.0.1") as reader:
        eventually(lambda: is_told(server, "127.6.0.1", "stalled"), WAIT_S)
        assert cuts(server, "stalled") == 1
        assert read_until_it_ends(reader) < len(CONTENT)


def test_a_client_that_reads_too_slowly_is_cut_off(server: RunningServer) -> None:
    host, _, port = server.host.rpartition(":")
    with socket.socket() as reader:
        # A small buffer: all that the client reads must soon come from the server.
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.bind(("127.6.0.2", 0))
        reader.connect((host, int(port)))
        reader.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

        deadline = time.monotonic() + WAIT_S
        while not is_told(server, "127.6.0.2", "slow") and time.monotonic() < deadline:
            with contextlib.suppress(ConnectionResetError):
                reader.recv(1000)
            time.sleep(0.1)
    assert is_told(server, "127.6.0.2", "slow")
    assert not is_told(server, "127.6.0.2", "stalled")
    assert cuts(server, "slow") == 1


def test_a_client_that_reads_fast_enough_or_waits_for_nothing_is_left_alone(server: RunningServer) -> None:
    """Both kinds go on for longer than a stalled client may, so the pauses here are a pace and no wait for anything."""
    idle = Connection(server.host)
    assert idle.ask("GET", "/v2/").status == 200
    with begin(server, PATH, "127.6.0.3", "Connection: close") as reader:
        received = len(reader.recv(4096))
        deadline = time.monotonic() + 3 * STALL_S
        while time.monotonic() < deadline:
            received += len(reader.recv(256 * 1024))
            time.sleep(0.2)
        assert received + read_until_it_ends(reader) > len(CONTENT)
    assert idle.ask("GET", "/v2/").status == 200
    assert "127.6.0.3" not in server.log.read_text()
    assert ask(server, PATH, "127.6.0.3") == 200
