"""A TCP proxy in front of a Postgres on a socket, which cuts connections or falls silent when a test says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

APPENDS = b"tagtrail-append"
BLOCK_BYTES = 1 << 16


class Fault(Enum):
    """The fate of the next append: it never arrives, its answer never does, or all falls silent once it arrived."""

    CUT_BEFORE = "cut before"
    CUT_AFTER = "cut after"
    SILENT_AFTER = "silent after"


@dataclass(eq=False)
class _Pair:
    """A client's connection to the proxy, and the proxy's connection to the server for it."""

    client: socket.socket
    server: socket.socket
    appends: bool = False
    answer_lost: bool = False

    def close(self) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Proxy:
    """The proxy; `url` is the database through it."""

    def __init__(self, database_url: str, port: int = 0) -> None:
        parts = urlsplit(database_url)
        self._target = str(Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432")
        self._listening = socket.create_server(("127.0.0.1", port))
        self._flowing = threading.Event()
        self._flowing.set()
        self._fault: Fault | None = None
        self._pairs: list[_Pair] = []
        host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.url = f"postgresql://{parts.username}@{host}{parts.path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def fail_next_append(self, fault: Fault) -> None:
        """Apply the fault once, to the next bytes of a connection that appends."""
        self._fault = fault

    def fall_silent(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on the bytes that were held back, and all that come."""
        self._flowing.set()

    def close(self) -> None:
        """Cut all connections and take no more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listening.close()
        for each in self._pairs:
            each.close()
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            pair = _Pair(client, socket.socket(socket.AF_UNIX))
            try:
                pair.server.connect(self._target)
            except OSError:  # nobody is there: the client is told so
                pair.close()
                continue
            self._pairs.append(pair)
            for pump in (self._up, self._down):
                threading.Thread(target=pump, args=(pair,), daemon=True).start()

    def _up(self, pair: _Pair) -> None:
        with suppress(OSError):
            while data := pair.client.recv(BLOCK_BYTES):
                self._flowing.wait()
                fault = self._next_fault(pair)
                pair.appends |= APPENDS in data
                if fault is Fault.CUT_BEFORE:
                    break
                pair.answer_lost = fault is Fault.CUT_AFTER
                if fault is Fault.SILENT_AFTER:
                    self.fall_silent()
                pair.server.sendall(data)
        pair.close()

    def _next_fault(self, pair: _Pair) -> Fault | None:
        if not pair.appends:
            return None
        fault, self._fault = self._fault, None
        return fault

    def _down(self, pair: _Pair) -> None:
        with suppress(OSError):
            while data := pair.server.recv(BLOCK_BYTES):
                self._flowing.wait()
                if pair.answer_lost:
                    break
                pair.client.sendall(data)
        pair.close()


@contextmanager
def proxied(database_url: str, port: int = 0) -> Iterator[Proxy]:
    """Run a proxy in front of the database during the block."""
    proxy = Proxy(database_url, port)
    try:
        yield proxy
    finally:
        proxy.close()
