"""GET of parts of a blob: one range, several, conditions; a real server sends what was asked for and no more."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest

from protocol.ranges import RANGES_MAX
from tests import multipart
from tests.api import Registry, registry_over, sha256
from tests.postgres import Server, drop_database, new_database
from tests.races.clients import Connection, put_whole_blob
from tests.servers import RunningServer

DATA = bytes(range(256)) * 8
PATH = f"/v2/u/app/blobs/{sha256(DATA)}"
TAG = f'"{sha256(DATA)}"'
BIG = Random("parts").randbytes(8 * 1024 * 1024)
# The most ranges that podman asks for, of a layer of some tens of gigabytes.
PODMAN_RANGES = 1025
TOO_LONG_BYTES = 1024 * 1024


def ranges(*ends: tuple[int, int]) -> str:
    """The header that asks for these, each by its first and last byte."""
    return "bytes=" + ",".join(f"{first}-{last}" for first, last in ends)


@pytest.fixture(scope="module")
def stored(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that has the blob, and that nothing here changes."""
    database = new_database(postgres_server)
    with registry_over(database, tmp_path_factory.mktemp("parts")) as made:
        made.blob("u/app", DATA)
        yield made
    drop_database(postgres_server, database)


@pytest.mark.parametrize(
    ("header", "status", "content_range"),
    [
        ("bytes=500-1499", 206, "bytes 500-1499/2048"),
        ("bytes=500-", 206, "bytes 500-2047/2048"),
        ("bytes=-500", 206, "bytes 1548-2047/2048"),
        ("bytes=2000-5000", 206, "bytes 2000-2047/2048"),
        ("bytes=500-599,600-699", 206, "bytes 500-699/2048"),
        ("bytes=500-599,9999-", 206, "bytes 500-599/2048"),
        ("bytes=500-0", 416, "bytes */2048"),
        ("bytes=5000-10000", 416, "bytes */2048"),
        ("bytes=5000-,6000-7000", 416, "bytes */2048"),
        ("bytes=0-1,x", 200, None),
        ("bytes=" + ",".join(f"{each}-{each}" for each in range(0, 2 * RANGES_MAX + 2, 2)), 200, None),
    ],
)
def test_one_range_is_206_with_its_bytes(stored: Registry, header: str, status: int, content_range: str | None) -> None:
    """The bytes that the header names; an unreasonable set gets the whole."""
    answer = stored.get(PATH, headers={"Range": header})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, content_range)
    if status != 416:
        first, last = (0, 2047) if content_range is None else map(int, content_range[6:].partition("/")[0].split("-"))
        assert answer.data == DATA[first : last + 1]
        assert answer.headers["Content-Length"] == str(len(answer.data))
        assert answer.headers["Content-Type"] == "application/octet-stream"


def test_several_ranges_are_one_multipart_answer(stored: Registry) -> None:
    """RFC 9110 section 15.3.7.2: no Content-Range of the whole answer; its common headers are those of any blob."""
    answer = stored.get(PATH, headers={"Range": "bytes=1000-1099,0-9,5-19,-1"})
    assert answer.status_code == 206
    assert [(each["Content-Range"], data) for each, data in multipart.split(answer.content_type, answer.data)] == [
        ("bytes 0-19/2048", DATA[:20]),
        ("bytes 1000-1099/2048", DATA[1000:1100]),
        ("bytes 2047-2047/2048", DATA[-1:]),
    ]
    assert answer.headers["Content-Length"] == str(len(answer.data))
    assert "Content-Range" not in answer.headers
    changing = {"Content-Type", "Content-Length", "X-Request-Id"}
    both = [
        {(name, value) for name, value in each.headers if name not in changing} for each in (answer, stored.get(PATH))
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("header", ["bytes=500-", "bytes=5000-", "bytes=0-1,5-6", "bytes=x"])
def test_head_has_no_ranges(stored: Registry, header: str) -> None:
    """RFC 9110 section 14.2: HEAD tells of the whole."""
    answer = stored.head(PATH, headers={"Range": header})
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "2048")
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    ("if_range", "asked", "status"),
    [
        (TAG, "bytes=0-1", 206),
        (f" {TAG} ", "bytes=0-1,5-6", 206),
        (TAG, "bytes=5000-", 416),
        ('"another"', "bytes=0-1", 200),
        ('"another"', "bytes=0-1,5-6", 200),
        ('"another"', "bytes=5000-", 200),
        (f"W/{TAG}", "bytes=0-1", 200),
        (TAG.strip('"'), "bytes=0-1", 200),
        (f'"x", {TAG}', "bytes=0-1", 200),
        ("*", "bytes=0-1", 200),
        ("Wed, 01 Jan 2031 00:00:00 GMT", "bytes=0-1", 200),
        ("", "bytes=0-1", 200),
    ],
)
def test_if_range_compares_strongly(stored: Registry, if_range: str, asked: str, status: int) -> None:
    """RFC 9110 section 13.1.5: whoever has a part of something else gets the whole."""
    answer = stored.get(PATH, headers={"Range": asked, "If-Range": if_range})
    assert answer.status_code == status
    assert status != 200 or answer.data == DATA


def test_parts_of_a_blob_that_the_client_has_are_not_sent(stored: Registry) -> None:
    """If-None-Match comes before If-Range and Range."""
    headers = {"Range": "bytes=5000-", "If-None-Match": TAG, "If-Range": '"another"'}
    answer = stored.get(PATH, headers=headers)
    assert (answer.status_code, answer.data) == (304, b"")


@pytest.fixture(scope="module")
def big(server: RunningServer) -> str:
    """The path of a blob of a running server."""
    assert put_whole_blob(Connection(server.host), "parts/big", BIG) == 201
    return f"/v2/parts/big/blobs/{sha256(BIG)}"


def test_podmans_largest_set_is_sent_and_little_more(server: RunningServer, big: str) -> None:
    """It is one answer of known length, and the connection goes on."""
    ends = [(start, start + 99) for start in range(0, PODMAN_RANGES * 8000, 8000)]
    with closing(http.client.HTTPConnection(server.host, timeout=60)) as connection:
        connection.request("GET", big, headers={"Range": ranges(*ends)})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 206
        assert answer.getheader("Content-Length") == str(len(body))
        found = multipart.split(answer.headers["Content-Type"], body)
        assert [data for _, data in found] == [BIG[first : last + 1] for first, last in ends]
        assert len(body) < PODMAN_RANGES * 300
        connection.request("GET", big, headers={"Range": "bytes=0-3"})
        assert connection.getresponse().read() == BIG[:4]


def test_large_parts_are_streamed(server: RunningServer, big: str) -> None:
    ends = [(1, 3_000_000), (3_000_002, len(BIG) - 1)]
    with closing(http.client.HTTPConnection(server.host, timeout=60)) as connection:
        connection.request("GET", big, headers={"Range": ranges(*ends)})
        answer = connection.getresponse()
        found = multipart.split(answer.headers["Content-Type"], answer.read())
        assert [data for _, data in found] == [BIG[first : last + 1] for first, last in ends]


def test_the_longest_set_fits_into_a_request(server: RunningServer, big: str) -> None:
    """It has the most ranges that are taken, as of a blob of a terabyte; this blob is small, so the answer is 416."""
    far = 10**12
    header = ranges(*((far + start, far + start + 4) for start in range(0, RANGES_MAX * 10, 10)))
    with closing(http.client.HTTPConnection(server.host, timeout=60)) as connection:
        connection.request("GET", big, headers={"Range": header})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Range")) == (416, f"bytes */{len(BIG)}")


def test_a_longer_head_is_refused(server: RunningServer, big: str) -> None:
    """The answer is 431, even if the server has not read all of the head."""
    host, _, port = server.host.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"GET {big} HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-0".encode()
        connection.sendall(head + b",0-0" * (TOO_LONG_BYTES // 4) + b"\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.getheader("Connection")) == (431, "close")
