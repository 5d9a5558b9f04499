"""A large layer is pushed and pulled, in one piece and in many, and no process takes more memory for it.

The long form with 5 GiB is `make test-long PART=large`; it needs 11 GiB of disk.
"""

import hashlib
import http.client
import itertools
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.abuse.memory import watching
from tests.races.clients import Connection
from tests.servers import RunningServer, serving

MIB = 1 << 20
SEED = 20261201
PSS_MAX = 200_000_000
CHUNKS = 20
RANGES = 16
REPOSITORY = "abuse/large"
SLACK = 1 << 30


@dataclass(frozen=True)
class Layer:
    """Bytes that are cheap to make and never repeat: the same random block again and again, with its number in it."""

    size: int
    seed: int

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, by blocks of at most a MiB."""
        rest = random.Random(self.seed).randbytes(MIB - 8)
        while start < end:
            number, offset = divmod(start, MIB)
            block = (number.to_bytes(8, "big") + rest)[offset : offset + end - start]
            yield block
            start += len(block)

    @property
    def digest(self) -> str:
        """The digest of all its bytes."""
        made = hashlib.sha256()
        for block in self.blocks(0, self.size):
            made.update(block)
        return f"sha256:{made.hexdigest()}"


def send(server: RunningServer, method: str, path: str, layer: Layer, start: int, end: int) -> str:
    """Send a part of the layer as the body of one request; answers where the session goes on."""
    headers = {"Content-Length": str(end - start), "Content-Range": f"{start}-{end - 1}"}
    if (start, end) == (0, layer.size):
        del headers["Content-Range"]
    with closing(http.client.HTTPConnection(server.host, timeout=600)) as connection:
        connection.request(method, path, body=layer.blocks(start, end), headers=headers)
        answer = connection.getresponse()
        assert answer.status == (202 if method == "PATCH" else 201), (answer.status, answer.read())
        return str(answer.headers["Location"])


def session(server: RunningServer) -> str:
    """Open an upload session; answers its location."""
    return Connection(server.host).ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]


def push_whole(server: RunningServer, layer: Layer, digest: str) -> None:
    """Push the layer by one request with a body."""
    send(server, "PUT", f"{session(server)}?digest={digest}", layer, 0, layer.size)


def push_chunks(server: RunningServer, layer: Layer, digest: str) -> None:
    """Push the layer chunk by chunk."""
    path = session(server)
    for start, end in parts(layer.size, CHUNKS):
        path = send(server, "PATCH", path, layer, start, end)
    assert Connection(server.host).ask("PUT", f"{path}?digest={digest}").status == 201


def pull(server: RunningServer, layer: Layer, digest: str, start: int, end: int) -> None:
    """Pull a part of the layer, without a Range if it is all of it; fails on a byte that differs."""
    whole = (start, end) == (0, layer.size)
    headers = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
    with closing(http.client.HTTPConnection(server.host, timeout=600)) as connection:
        connection.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.length) == (200 if whole else 206, end - start)
        for block in layer.blocks(start, end):
            assert answer.read(len(block)) == block
        assert answer.read(1) == b""


def pull_whole(server: RunningServer, layer: Layer, digest: str) -> None:
    """Pull the layer by one request."""
    pull(server, layer, digest, 0, layer.size)


def pull_ranges(server: RunningServer, layer: Layer, digest: str) -> None:
    """Pull all of the layer by ranges, the last one first."""
    for start, end in reversed(parts(layer.size, RANGES)):
        pull(server, layer, digest, start, end)


def parts(size: int, count: int) -> list[tuple[int, int]]:
    """So many parts (start, end) of nearly the same size, which do not begin at multiples of a block."""
    cuts = [size * number // count + 7 * (0 < number < count) for number in range(count + 1)]
    return list(itertools.pairwise(cuts))


@pytest.mark.parametrize("size", [192 * MIB, pytest.param(5 * 1024 * MIB, marks=pytest.mark.slow)])
def test_memory_stays_small_whatever_the_size_of_a_layer(size: int) -> None:
    with serving(None, "--no-access-log") as server:
        free = shutil.disk_usage(server.data).free
        needed = 2 * size + SLACK
        assert free > needed, f"needs {needed >> 20} MiB of disk at {server.data}, {free >> 20} MiB are free"
        print(f"seed {SEED}")
        with watching(server) as memory:
            for number, push in enumerate((push_whole, push_chunks)):
                layer = Layer(size + number, SEED + number)
                digest = layer.digest
                for transfer in (push, pull_whole, pull_ranges):
                    began = time.monotonic()
                    transfer(server, layer, digest)
                    rate = size / (time.monotonic() - began) / 1e6
                    print(f"{transfer.__name__}: {rate:.0f} MB/s; so far {memory}")
        assert memory.samples > 3
        assert all(most < PSS_MAX for most in memory.most.values()), memory
