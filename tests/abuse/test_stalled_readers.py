"""Clients that ask for much and read little keep nobody from being served, and each address may have so many downloads.

bench/stalled_readers.py measures how fast others are served meanwhile, and what such clients cost.
"""

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.abuse.readers import WAIT_S, ask, begin, stalled
from tests.api import image
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, serving
from tests.waiting import eventually

REPOSITORY = "abuse/stalled"
THREADS = 8
READERS = 60
PER_ADDRESS = 4
TOTAL = 80
CONTENT = bytes(range(256)) * 64 * 1024
PATH = f"/v2/{REPOSITORY}/blobs/sha256:{hashlib.sha256(CONTENT).hexdigest()}"
PROXY = "127.9.0.1"
OPTIONS = {
    "TAGTRAIL_WORKERS": "1",
    "TAGTRAIL_THREADS": str(THREADS),
    "TAGTRAIL_DOWNLOADS_PER_ADDRESS": str(PER_ADDRESS),
    "TAGTRAIL_DOWNLOADS_TOTAL": str(TOTAL),
    "TAGTRAIL_TRUSTED_PROXY": "127.9.0.0/24",
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of few threads, with a blob of 16 MiB in it."""
    with serving(OPTIONS, "--no-access-log") as running:
        api = Connection(running.host)
        assert put_whole_blob(api, REPOSITORY, CONTENT) == 201
        assert put_manifest(api, REPOSITORY, "v1", image(CONTENT)).status == 201
        yield running


def refused(connection: socket.socket) -> http.client.HTTPResponse:
    """Read an answer; fails unless it is a 429 that tells clients when to try again."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert json.loads(answer.read())["errors"][0]["code"] == "TOOMANYREQUESTS"
    return answer


def test_more_stalled_readers_than_threads_keep_nobody_from_being_served(server: RunningServer) -> None:
    with ExitStack() as stack:
        for number in range(READERS):
            stack.enter_context(stalled(server, PATH, f"127.2.0.{number + 1}"))
        api = Connection(server.host)
        for path in ("/v2/", f"/v2/{REPOSITORY}/manifests/v1", f"/v2/{REPOSITORY}/tags/list"):
            assert api.ask("GET", path).status == 200
        assert api.ask("GET", PATH).body == CONTENT
        assert put_whole_blob(api, REPOSITORY, b"another one") == 201


def test_a_reader_that_stalled_gets_the_whole_blob_once_it_reads(server: RunningServer) -> None:
    with stalled(server, PATH) as reader:
        answer = http.client.HTTPResponse(reader)
        answer.begin()
        assert answer.read() == CONTENT


def test_an_address_with_as_many_downloads_as_it_may_have_is_told_to_try_again(server: RunningServer) -> None:
    with ExitStack() as stack:
        for _ in range(PER_ADDRESS):
            stack.enter_context(stalled(server, PATH, "127.3.0.1"))
        refused(stack.enter_context(begin(server, PATH, "127.3.0.1")))
        assert ask(server, PATH, "127.3.0.2") == 200
        assert ask(server, "/v2/", "127.3.0.1") == 200
    eventually(lambda: ask(server, PATH, "127.3.0.1") == 200, WAIT_S)


def test_all_together_have_so_many_downloads(server: RunningServer) -> None:
    eventually(lambda: ask(server, PATH, "127.4.9.9") == 200, WAIT_S)
    with ExitStack() as stack:

        def full() -> bool:
            for number in range(TOTAL):
                stack.enter_context(begin(server, PATH, f"127.4.0.{number + 1}"))
            return ask(server, PATH, "127.4.9.9") == 429

        eventually(full, WAIT_S)
        assert ask(server, "/v2/", "127.4.9.9") == 200
    eventually(lambda: ask(server, PATH, "127.4.9.9") == 200, WAIT_S)


def test_behind_a_trusted_proxy_each_client_has_its_own_downloads(server: RunningServer) -> None:
    with ExitStack() as stack:
        for _ in range(PER_ADDRESS):
            stack.enter_context(stalled(server, PATH, PROXY, "X-Forwarded-For: 10.0.0.1"))
        refused(stack.enter_context(begin(server, PATH, PROXY, "X-Forwarded-For: 1.2.3.4, 10.0.0.1")))
        assert ask(server, PATH, PROXY, "X-Forwarded-For: 10.0.0.1, 10.0.0.2") == 200


def test_a_trusted_proxy_itself_has_as_many_downloads_as_there_are(server: RunningServer) -> None:
    with ExitStack() as stack:
        for _ in range(PER_ADDRESS + 1):
            stack.enter_context(stalled(server, PATH, PROXY))


def test_an_address_that_a_stranger_claims_is_not_believed(server: RunningServer) -> None:
    with ExitStack() as stack:
        for number in range(PER_ADDRESS):
            stack.enter_context(stalled(server, PATH, "127.5.0.1", f"X-Forwarded-For: 10.1.0.{number}"))
        refused(stack.enter_context(begin(server, PATH, "127.5.0.1", "X-Forwarded-For: 10.1.0.9")))
