"""Clients that fall silent within a body are cut off and keep nobody out; other clients are left alone.

Each client has an address of its own, except in tests of an address with several connections.
"""

import http.client
import itertools
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.abuse.readers import closed_if_it_fails
from tests.api import image, sha256
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, serving
from tests.waiting import eventually

REPOSITORY = "abuse/silent"
LAYER = b"a layer"
DATA = b"0123456789" * 1000
THREADS = 8
BODIES = 4
# A busy machine may keep a good client from sending for nearly as long.
STALL_S = 4
WAIT_S = 30.0
OPTIONS = {
    "TAGTRAIL_WORKERS": "1",
    "TAGTRAIL_THREADS": str(THREADS),
    "TAGTRAIL_UPLOAD_BODIES_TOTAL": str(BODIES),
    "TAGTRAIL_UPLOAD_STALL_S": str(STALL_S),
}
NONE = f"/v2/{REPOSITORY}/blobs/uploads/{'a' * 40}"
_addresses = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of few threads that cuts silent clients off soon, with an image in it."""
    with serving(OPTIONS, "--no-access-log") as running:
        api = Connection(running.host)
        assert put_whole_blob(api, REPOSITORY, LAYER) == 201
        assert put_manifest(api, REPOSITORY, "v1", image(LAYER)).status == 201
        yield running


def address() -> str:
    """An address of this machine that no client had before."""
    return f"127.7.0.{next(_addresses)}"


def connect(server: RunningServer, source: str) -> socket.socket:
    """A connection from an address."""
    host, _, port = server.host.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S, source_address=(source, 0))


def session(server: RunningServer) -> str:
    """Open an upload session; answers its location."""
    with closing(http.client.HTTPConnection(server.host, timeout=WAIT_S)) as made:
        made.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        answer = made.getresponse()
        answer.read()
        return answer.headers["Location"]


def head(path: str, *headers: str) -> bytes:
    """The head of an upload."""
    return "\r\n".join([f"PATCH {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def silent_in_body(server: RunningServer, source: str, path: str) -> socket.socket:
    """Send a part of a body, so that the server waits for the rest; answers the connection."""
    with closed_if_it_fails(connect(server, source)) as made:
        made.sendall(head(path, f"Content-Length: {len(DATA)}", "Expect: 100-continue"))
        assert made.recv(1000).startswith(b"HTTP/1.1 100")
        made.sendall(DATA[:100])
    return made


def silent_in_rest(server: RunningServer, source: str) -> socket.socket:
    """Send a part of a body that is refused, read the answer, and send no more; answers the connection."""
    with closed_if_it_fails(connect(server, source)) as made:
        made.sendall(head(NONE, f"Content-Length: {len(DATA)}") + DATA[:100])
        assert answered(made).status == 404
    return made


def answered(connection: socket.socket) -> http.client.HTTPResponse:
    """The answer, read to its end."""
    answer = http.client.HTTPResponse(connection, method="PATCH")
    answer.begin()
    answer.read()
    return answer


def refused(server: RunningServer) -> tuple[int, str]:
    """Send a body that is refused, all of it before listening; answers the status and the code."""
    with closing(http.client.HTTPConnection(server.host, timeout=WAIT_S, source_address=(address(), 0))) as made:
        made.request("PATCH", NONE, body=bytes(8 << 20))
        answer = made.getresponse()
        return answer.status, json.loads(answer.read())["errors"][0]["code"]


def cuts(server: RunningServer) -> float:
    """The number of silent clients that were cut off so far."""
    return server.metrics().get('tagtrail_connections_cut_total{reason="silent"}', 0)


def told(server: RunningServer) -> list[str]:
    """The addresses of clients that were cut off because they were silent within a body, read from the log."""
    return re.findall(r"does not send.* address=(\S+) .*reason=silent ", server.log.read_text())


def test_a_client_that_falls_silent_is_cut_off_and_may_go_on_with_its_session(server: RunningServer) -> None:
    """Both within a body and within the rest of a body after the answer, a silent client is cut off."""
    sources, path = [address(), address()], session(server)
    with silent_in_body(server, sources[0], path) as first, silent_in_rest(server, sources[1]) as second:
        eventually(lambda: set(sources) <= set(told(server)), WAIT_S)
        assert [each.recv(1) for each in (first, second)] == [b"", b""]
    assert [told(server).count(each) for each in sources] == [1, 1]
    eventually(lambda: cuts(server) == len(told(server)), WAIT_S)
    finished = Connection(server.host).ask("PUT", f"{path}?digest={sha256(DATA)}", DATA)
    assert finished.status == 201


def test_more_silent_clients_than_threads_keep_nobody_out_and_lose_nobody_an_answer(server: RunningServer) -> None:
    """Half of them are silent within a body or were one too many, half are silent in the rest after their answer."""
    with ExitStack() as stack:
        for _ in range(2 * THREADS):
            stack.enter_context(silent_in_rest(server, address()))
            made = stack.enter_context(connect(server, address()))
            made.sendall(head(session(server), f"Content-Length: {len(DATA)}") + DATA[:100])
        api = Connection(server.host)
        for _ in range(20):
            assert refused(server) == (404, "BLOB_UPLOAD_UNKNOWN")
            assert api.ask("GET", f"/v2/{REPOSITORY}/manifests/v1").status == 200
    eventually(lambda: put_whole_blob(Connection(server.host), REPOSITORY, b"another") == 201, WAIT_S)
    assert refused(server) == (404, "BLOB_UPLOAD_UNKNOWN")
