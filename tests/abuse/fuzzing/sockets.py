"""Clients on connections of a running server: pipelines of requests, then bytes that are no request; answers judged."""

import select
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.abuse.fuzzing import requests
from tests.abuse.fuzzing.damage import damaged
from tests.abuse.fuzzing.oracle import fault_of
from tests.abuse.fuzzing.requests import Requests, World
from tests.clients.wire import Answer, Registry

# Far longer than any answer takes, also on a busy machine: a client that waits so long would wait for ever.
ANSWER_TIMEOUT_S = 30.0
QUIET_S = 0.1
PIPELINE_MAX = 24
# A client pushes what its requests name once in so many connections.
STOCK_EVERY = 100
# Statuses by which granian (hyper) itself answers a request that it cannot read, before it closes the connection.
NOT_OURS = (400, 413, 414, 417, 431, 501)


class Closed(Exception):
    """The server has closed the connection."""


@dataclass(slots=True)
class Tally:
    """The answers that came back; `refused` holds the ids of requests that were refused."""

    statuses: Counter[int] = field(default_factory=Counter)
    unreadable: Counter[int] = field(default_factory=Counter)
    connections: int = 0
    damages: int = 0
    refused: set[str] = field(default_factory=set)
    slowest_s: float = 0.0


class Wire:
    """One connection, and what has come over it that is not read yet."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._ending = False

    def send(self, data: bytes) -> None:
        """Send all; raises Closed."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as problem:
            raise Closed from problem

    def answer(self, method: str) -> Answer:
        """The next answer that is not 1xx; raises Closed, and TimeoutError after long silence."""
        while True:
            while b"\r\n\r\n" not in self._buffer:
                self._more()
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            status = int(status_line.split(" ")[1])
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        length = 0 if method == "HEAD" or status in (204, 304) else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(status, headers, body)

    def finish(self) -> None:
        """Say that nothing more comes, once the connection is quiet: the server must then stop waiting for a body."""
        self._ending = True

    def reset(self) -> None:
        """Close the connection with a reset, as the kernel does for a killed client."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _more(self) -> None:
        try:
            if self._ending and not select.select([self._socket], [], [], QUIET_S)[0]:
                self._socket.shutdown(socket.SHUT_WR)
                self._ending = False
            block = self._socket.recv(262_144)
        except (ConnectionResetError, BrokenPipeError) as problem:
            raise Closed from problem
        if not block:
            raise Closed
        self._buffer += block


def stock(registry: Registry) -> None:
    """Push what the requests name, and what some of them have deleted; another client may delete it meanwhile."""
    for name in requests.KNOWN:
        for blob in requests.BLOBS:
            registry.put_blob(name, blob)
        for body in requests.MANIFESTS:
            registry.put_manifest(name, requests.TAGS[0], requests.TYPE_OF[body], body)


class Client(threading.Thread):
    """A thread that plays one client after another until there are as many answers as wanted, or a `fault`."""

    def __init__(self, address: tuple[str, int], seed: int, answers: int) -> None:
        super().__init__(name=f"client-{seed}")
        self._address = address
        self._registry = Registry(f"{address[0]}:{address[1]}")
        self._seed = seed
        self._answers = answers
        self._chance = Random(seed)
        self._world = World()
        self._requests = Requests(self._chance, self._world, lies=False)
        self.tally = Tally()
        self.fault: str | None = None

    def run(self) -> None:
        """Play until there are enough answers or a fault."""
        while self.fault is None and self.tally.statuses.total() + self.tally.damages < self._answers:
            if self.tally.connections % STOCK_EVERY == 0:
                stock(self._registry)
            self.tally.connections += 1
            wire = Wire(self._address)
            try:
                self._pipeline(wire)
                if self._chance.random() < 0.7:
                    self._damage(wire)
            except Closed:
                pass
            finally:
                wire.close()

    def _pipeline(self, wire: Wire) -> None:
        """Send requests one behind the other. A refused body ends the connection, so later ones may get no answer."""
        sent = [self._requests.draw() for _ in range(self._chance.randrange(1, PIPELINE_MAX))]
        wire.send(b"".join(each.raw() for each in sent))
        for each in sent:
            started = time.monotonic()
            try:
                got = wire.answer(each.method)
            except TimeoutError:
                self._fail(f"no answer within {ANSWER_TIMEOUT_S:g} s", str(each))
                return
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - started)
            if "docker-distribution-api-version" not in got.headers:
                self._not_ours(got, str(each))
                return
            self._judge(each.method, got, str(each))
            self._world.learn(each, got.status, got.headers)

    def _damage(self, wire: Wire) -> None:
        data = damaged(self._chance, self._requests.draw())
        self.tally.damages += 1
        cut = self._chance.randrange(len(data) + 1)
        wire.send(data[:cut])
        wire.send(data[cut:])
        if self._chance.random() < 0.2:
            wire.reset()
            raise Closed
        # Nobody knows which request the server read; only bytes that were cut or flipped can ask by HEAD.
        method = "HEAD" if data.startswith(b"HEAD ") else "GET"
        wire.finish()
        while True:
            try:
                got = wire.answer(method)
            except TimeoutError:
                self._fail(f"neither answered nor closed within {ANSWER_TIMEOUT_S:g} s", repr(data[:3000]))
                return
            if "docker-distribution-api-version" in got.headers:
                self._judge(method, got, repr(data[:3000]))
            else:
                self._not_ours(got, repr(data[:3000]))

    def _judge(self, method: str, got: Answer, asked: str) -> None:
        fault = fault_of(method, got.status, got.headers, got.body)
        if fault is not None:
            self._fail(fault, asked)
        self.tally.statuses[got.status] += 1
        if got.status >= 400:
            self.tally.refused.add(got.headers["x-request-id"])

    def _not_ours(self, got: Answer, asked: str) -> None:
        self.tally.unreadable[got.status] += 1
        if got.status not in NOT_OURS:
            self._fail(f"status {got.status} of the server itself", asked)

    def _fail(self, what: str, asked: str) -> None:
        self.fault = f"seed {self._seed}, connection {self.tally.connections}: {what}\n{asked}"
