"""Measures GETs of a manifest beside slow clients: `python bench/slow_clients.py`.

Starts a server with its defaults. Reads are measured three times: alone; beside 1,000 connections that send nothing and
200 uploads of one byte a second, each of which is begun again when it is refused; and beside these and 16 clients that
push. Four readers ask, each a hundredth of a second after its last answer. Load and readers share the machine with the
server.
"""

import contextlib
import multiprocessing
import secrets
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.innocent import measure
from tests.api import image
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import serving

IDLE = 1000
SLOW = 200
SLOW_BEGUN_A_SECOND = 20
PUSHING = 16
MEASURED_S = 15.0
REPOSITORY = "bench/slow"
LAYER_BYTES = 64 * 1024
GOALS_MS = {"quiet": None, "slow ones alone": 50, "slow ones and pushes": 250}


def slow(host: str, ended: Event) -> None:
    """Hold idle connections and send uploads of one byte a second until it is ended; prints how they were answered."""
    address, _, port = host.rpartition(":")
    where = (address, int(port))
    idle = [socket.create_connection(where) for _ in range(IDLE)]
    api = Connection(host)
    paths = [api.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"] for _ in range(SLOW)]
    answers: Counter[str] = Counter()
    with selectors.DefaultSelector() as selector:

        def begin(path: str) -> None:
            made = socket.create_connection(where)
            made.sendall(f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".encode())
            selector.register(made, selectors.EVENT_READ, (made, path))

        while not ended.is_set():
            # Clients do not all begin at one moment. Spread over seconds, the answers to them are spread too.
            for path in paths[:SLOW_BEGUN_A_SECOND]:
                begin(path)
            del paths[:SLOW_BEGUN_A_SECOND]
            for key in list(selector.get_map().values()):
                with contextlib.suppress(OSError):
                    made, _ = key.data
                    made.send(b"x")
            until = time.monotonic() + 1
            while (left := until - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    made, path = key.data
                    answers[_status(made)] += 1
                    selector.unregister(made)
                    made.close()
                    begin(path)
        for key in list(selector.get_map().values()):
            made, _ = key.data
            made.close()
    print(f"  slow uploads were answered {dict(answers)}; {closed(idle)} of {IDLE} idle connections were closed")


def _status(connection: socket.socket) -> str:
    with contextlib.suppress(OSError):
        return connection.recv(100).decode(errors="replace")[9:12]
    return "reset"


def closed(connections: list[socket.socket]) -> int:
    """The number of these connections that the server has closed."""
    found = 0
    for each in connections:
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            found += each.recv(1) == b""
    return found


def pushing(host: str, ended: Event) -> None:
    """Push images with fresh layers from several clients until it is ended; prints the pushes a second."""

    def push(number: int) -> int:
        api = Connection(host)
        for pushes in range(1_000_000):
            if ended.is_set():
                return pushes
            layer = secrets.token_bytes(LAYER_BYTES)
            assert put_whole_blob(api, REPOSITORY, layer) == 201
            assert put_manifest(api, REPOSITORY, f"pushed-{number}", image(layer)).status == 201
        raise AssertionError

    began = time.monotonic()
    with ThreadPoolExecutor(PUSHING) as pool:
        pushes = sum(pool.map(push, range(PUSHING)))
    print(f"  {pushes / (time.monotonic() - began):.0f} pushes a second")


@contextmanager
def beside(load: Callable[[str, Event], None], host: str, settle_s: float) -> Iterator[None]:
    """Run a load in a process of its own during the block, which begins `settle_s` seconds after the load."""
    ended = multiprocessing.Event()
    process = multiprocessing.Process(target=load, args=(host, ended))
    process.start()
    try:
        time.sleep(settle_s)
        yield
    finally:
        ended.set()
        process.join()
        assert process.exitcode == 0


def measure_gets(title: str, host: str) -> None:
    """Measure GETs of the manifest for MEASURED_S seconds, and print them under this title."""
    measure(title, host, REPOSITORY, MEASURED_S, GOALS_MS[title])


def main() -> None:
    """Measure alone, beside slow clients, and beside slow clients and pushes: about a minute and a half."""
    with serving(None, "--no-access-log") as server:
        api = Connection(server.host)
        assert put_whole_blob(api, REPOSITORY, b"layer") == 201
        assert put_manifest(api, REPOSITORY, "v1", image(b"layer")).status == 201
        print(f"{server.settings.workers} workers with {server.settings.threads} threads")
        measure_gets("quiet", server.host)
        with beside(slow, server.host, SLOW / SLOW_BEGUN_A_SECOND + 3):
            measure_gets("slow ones alone", server.host)
            with beside(pushing, server.host, 2):
                measure_gets("slow ones and pushes", server.host)


if __name__ == "__main__":
    main()
