"""Measures reads beside 200 uploads of one byte a second: `python bench/slow_bodies.py`.

Starts granian with two workers and a small application that reads bodies as ours does, once with many blocking threads
and once with few. Measures reads without and with the slow uploads, and prints rates and ratios. Reads come from `wrk`
where it is installed, else from a loop of GETs. docs/decisions/0003-slow-bodies.md tells what follows from the figures.
"""

import http.client
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from command_api.bodies import BodyLimits, BodyTooSlow, read_body
from protocol.gates import AddressGate, TooMany

SLOW_CLIENTS = 200
SILENT_CLIENTS = 600
READERS = 16
READ_S = 2.0
SETTLE_S = 1.5
WORKERS = 2
CAP_VARIABLE = "SLOW_BODIES_CAP"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

# Granian's workers import this module for the application below.

_gate = AddressGate(per_address_max=10_000, total_max=int(os.environ.get(CAP_VARIABLE, "192")))
_limits = BodyLimits()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a GET at once; read the body of a POST first, at the pace and under the cap of ours."""
    status = "200 OK"
    if environ["REQUEST_METHOD"] == "POST":
        try:
            with _gate.inside(environ["REMOTE_ADDR"]):
                for _ in read_body(environ, _limits):
                    pass
        except TooMany:
            status = "429 Too Many Requests"
        except BodyTooSlow:
            status = "408 Request Timeout"
    start_response(status, [("Content-Length", "2"), *([("Connection", "close")] if status[0] == "4" else [])])
    return [b"{}"]


@contextmanager
def server(threads: int, bodies_max: int) -> Iterator[int]:
    """Run granian with the application during the block; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    here = os.path.dirname(os.path.abspath(__file__))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(WORKERS), "--blocking-threads", str(threads), "--no-ws", "--backlog", "1024"),
            *("--workers-kill-timeout", "2", "slow_bodies:application"),
        ],
        cwd=here,
        env={**os.environ, CAP_VARIABLE: str(bodies_max), "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class SlowClients:
    """Uploads of one byte a second each, or of nothing if `silent`; one thread drives them and counts the answers."""

    port: int
    clients: int
    silent: bool
    answers: Counter[int] = field(default_factory=Counter)
    first_408_s: float | None = None
    last_408_s: float | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "SlowClients":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def open(self) -> int:
        """Uploads that have had no answer yet."""
        return self.clients - sum(self.answers.values())

    def _run(self) -> None:
        started = time.monotonic()
        connections: set[socket.socket] = set()
        with selectors.DefaultSelector() as selector:
            for _ in range(self.clients):
                made = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                made.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
                selector.register(made, selectors.EVENT_READ)
                connections.add(made)
            while not self._stop.is_set():
                for connection in () if self.silent else connections:
                    with _tolerant():
                        connection.send(b"x")
                until = time.monotonic() + 1
                while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
                    for key, _ in selector.select(min(left, 0.1)):
                        answered = key.fileobj
                        assert isinstance(answered, socket.socket)
                        self._answered(answered, time.monotonic() - started)
                        selector.unregister(answered)
                        connections.discard(answered)
                        answered.close()
        for connection in connections:
            connection.close()

    def _answered(self, connection: socket.socket, after_s: float) -> None:
        status = 0
        with _tolerant():
            status = int(([*connection.recv(100).split(), b"0", b"0"])[1])
        self.answers[status] += 1
        if status == 408:
            self.first_408_s = self.first_408_s or after_s
            self.last_408_s = after_s


@contextmanager
def _tolerant() -> Iterator[None]:
    """Pass over an OSError: the server may close a connection at any moment."""
    try:
        yield
    except OSError:
        return


@dataclass(frozen=True)
class Reads:
    """The rate of reads a second, and their times in milliseconds; None if nothing was answered."""

    rate: float
    p50_ms: float | None
    p99_ms: float | None

    def __str__(self) -> str:
        if self.p50_ms is None or self.p99_ms is None or not self.rate:
            return "no GET was answered"
        return f"{self.rate:8.0f} GET/s   p50 {self.p50_ms:7.2f} ms   p99 {self.p99_ms:7.2f} ms"


def read(port: int) -> Reads:
    """Send GETs for READ_S seconds."""
    return read_with_wrk(port) if shutil.which("wrk") else read_in_python(port)


def read_with_wrk(port: int) -> Reads:
    """Send GETs by the program wrk."""
    told = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{READERS}",
            f"-d{READ_S:.0f}s",
            "--timeout",
            "10s",
            "--latency",
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if rate is None or not float(rate[1]):
        return Reads(0, None, None)

    def percentile(which: int) -> float | None:
        found = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s)", told, re.MULTILINE)
        return float(found[1]) * UNITS[found[2]] if found else None

    return Reads(float(rate[1]), percentile(50), percentile(99))


def read_in_python(port: int) -> Reads:
    """Send GETs by threads of this process: the rate is lower than wrk's, but ratios of such rates still tell."""
    times: list[float] = []
    until = time.monotonic() + READ_S

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READ_S)
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except OSError:
                return
            times.append((time.monotonic() - started) * 1000)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if not times:
        return Reads(0, None, None)
    times.sort()
    return Reads(len(times) / READ_S, times[len(times) // 2], times[int(len(times) * 0.99)])


def measure(
    title: str,
    threads: int,
    bodies_max: int,
    *,
    clients: int = SLOW_CLIENTS,
    silent: bool = False,
    wait_for_408: bool = False,
) -> None:
    """Measure reads alone, then beside the slow uploads, and print both."""
    print(f"\n{title}: {WORKERS} workers with {threads} threads, at most {bodies_max} open bodies each")
    with server(threads, bodies_max) as port:
        alone = read(port)
        print(f"  reads alone               {alone}")
        with SlowClients(port, clients, silent) as slow:
            time.sleep(SETTLE_S)
            beside = read(port)
            print(f"  beside {slow.open:3} uploads        {beside}   {beside.rate / alone.rate:6.1%} of the rate alone")
            deadline = time.monotonic() + 20
            while wait_for_408 and slow.answers[408] < clients and time.monotonic() < deadline:
                time.sleep(0.1)
        print(f"  answers to the uploads    {dict(slow.answers) or 'none yet'}", end="")
        if slow.first_408_s is not None and slow.last_408_s is not None:
            print(f", 408 after {slow.first_408_s:.1f} to {slow.last_408_s:.1f} s", end="")
        print(flush=True)


def main() -> None:
    """Make all measurements, in less than 40 s."""
    measure("Many threads", 256, 192, wait_for_408=True)
    measure("Many threads, silent clients", 256, 192, clients=SILENT_CLIENTS, silent=True)
    measure("Few threads, no cap", 8, 10_000)
    measure("Few threads, capped", 8, 6)


if __name__ == "__main__":
    main()
