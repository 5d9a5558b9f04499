"""Measures how readers who stall or crawl slow down others: `python bench/stalled_readers.py`, about two minutes.

Starts a server with its defaults and pushes a blob of 256 MiB. From many addresses 2,000 clients ask for the blob and
read nothing, and 2,000 read 10 KiB a second. Meanwhile other readers ask for a manifest. Prints how long these took,
how much memory of our processes each client takes, and how much is still taken a minute after the clients left. Load
and readers share the machine with the server.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import re
import resource
import socket
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.innocent import measure
from tests.api import image
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, serving

BLOB_BYTES = 256 * 1024 * 1024
SLOW_BYTES_A_SECOND = 10 * 1024
REPOSITORY = "bench/stalled"
ADDRESSES = 250
GOAL_P99_MS = 50
GOAL_KIB = 256
# Memory counts as given back when our processes hold at most this share more than before.
GOAL_BACK = 0.1


def address_of(number: int) -> str:
    """The address of this machine that client `number` sends from."""
    return f"127.1.{number // ADDRESSES}.{number % ADDRESSES + 1}"


def begin(host: str, path: str, number: int) -> socket.socket:
    """Connect from the address of client `number`, which few share, and ask for the blob."""
    address, _, port = host.rpartition(":")
    made = socket.create_connection((address, int(port)), source_address=(address_of(number), 0))
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return made


def crowd(host: str, path: str, stalled: int, slow: int, started: Event, ended: Event) -> None:
    """Hold clients that read nothing and clients that read 10 KiB a second, until `ended` is set."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    held = [begin(host, path, number) for number in range(stalled)]
    crawling = [begin(host, path, stalled + number) for number in range(slow)]
    broken = 0
    pause_s = 1 / max(1, len(crawling))
    started.set()
    for each in crawling:
        each.setblocking(False)
    while not ended.is_set():
        began = time.monotonic()
        for number, each in enumerate(crawling):
            # Clients do not all read at one moment, so their reads are spread over the second.
            if number % 50 == 0:
                time.sleep(max(0.0, began + number * pause_s - time.monotonic()))
            with contextlib.suppress(BlockingIOError):
                broken += each.recv(SLOW_BYTES_A_SECOND) == b""
        ended.wait(max(0.01, began + 1 - time.monotonic()))
    for each in (*held, *crawling):
        each.close()
    print(f"  {broken} of the slow ones were closed by the server")


def memory(server: RunningServer) -> int:
    """The bytes that our processes hold without the database, as PSS: memory that they share counts once."""
    total = 0
    children = server.children()
    for pid in (server.process.pid, children["api"], *server.workers(), children["projector"]):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        total += int(found[1]) * 1024
    return total


def threads(server: RunningServer) -> int:
    """The number of threads of all workers."""
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in server.workers())


def push_blob(host: str) -> str:
    """Push a large blob of zeros and a small image; answers the path of the blob."""
    api = Connection(host)
    assert put_whole_blob(api, REPOSITORY, b"layer") == 201
    assert put_manifest(api, REPOSITORY, "v1", image(b"layer")).status == 201
    content = bytes(BLOB_BYTES)
    assert put_whole_blob(api, REPOSITORY, content) == 201
    return f"/v2/{REPOSITORY}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"


def main() -> None:
    """Measure reads and memory alone, beside the crowd, and after it has left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stalled", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    count = given.stalled + given.slow
    with serving(None, "--no-access-log") as server:
        path = push_blob(server.host)
        print(f"{server.settings.workers} workers with {server.settings.threads} threads")
        measure("alone", server.host, REPOSITORY, given.seconds)
        before = memory(server)
        started, ended = multiprocessing.Event(), multiprocessing.Event()
        load = multiprocessing.Process(
            target=crowd, args=(server.host, path, given.stalled, given.slow, started, ended)
        )
        load.start()
        try:
            started.wait()
            time.sleep(5)
            readers = f"{given.stalled} stalled and {given.slow} slow readers"
            measure(f"beside {readers}", server.host, REPOSITORY, given.seconds)
            beside = memory(server)
            print(
                f"goal: p99 below {GOAL_P99_MS} ms\n"
                f"memory: {before >> 20} MiB before, {beside >> 20} MiB beside {threads(server)} threads, "
                f"{(beside - before) / count / 1024:.0f} KiB a reader (goal: below {GOAL_KIB})",
                flush=True,
            )
        finally:
            ended.set()
            load.join()
        assert load.exitcode == 0
        measure("once they have left", server.host, REPOSITORY, given.seconds)
        time.sleep(max(0.0, 60 - given.seconds))
        after = memory(server)
        judged = "reached" if after <= (1 + GOAL_BACK) * before else "MISSED"
        print(
            f"memory a minute after they left: {after >> 20} MiB, {after / before - 1:+.0%} of what it was before, "
            f"{threads(server)} threads (goal: at most {GOAL_BACK:+.0%}): {judged}"
        )


if __name__ == "__main__":
    main()
