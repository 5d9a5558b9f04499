"""A TCP proxy in front of a registry, which counts the bytes that clients are sent and keeps what they asked."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BLOCK_BYTES = 1 << 18


class Measured:
    """The proxy; `host` is the registry through it."""

    def __init__(self, registry: str) -> None:
        host, _, port = registry.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sent = 0
        self._asked = bytearray()
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def start_again(self) -> None:
        """Count from nothing."""
        with self._lock:
            self._sent = 0
            self._asked.clear()

    @property
    def sent(self) -> int:
        """Bytes that went to clients, heads included."""
        with self._lock:
            return self._sent

    @property
    def asked(self) -> str:
        """All bytes that clients have sent, as text."""
        with self._lock:
            return self._asked.decode("latin-1")

    def close(self) -> None:
        """Take no more connections; those that are there end with their clients."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # nobody is there: the client is told so
                client.close()
                continue
            threading.Thread(target=self._pump, args=(client, server, self._count_asked), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, self._count_sent), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, count: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                count(data)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()

    def _count_asked(self, data: bytes) -> None:
        with self._lock:
            self._asked += data

    def _count_sent(self, data: bytes) -> None:
        with self._lock:
            self._sent += len(data)


@contextmanager
def measured(registry: str) -> Iterator[Measured]:
    """Run a counting proxy in front of a registry during the block."""
    proxy = Measured(registry)
    try:
        yield proxy
    finally:
        proxy.close()
