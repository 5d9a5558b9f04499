"""Connections that the server closes with a body unread end by FIN, and not by a reset, which overtakes the answer.

The kernel resets a connection whose last file is closed while bytes are unread or still come. The server has one file
of it, and a second one is held here. The bytes that the client still sends are read from that one and thrown away, but
only once the server has shut down its side: from then on nobody else reads. One thread does so for all connections.

A request's connection is not known, only its client's address. So of that address the few connections that received
something last are held; those that the server does not close are let go untouched.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tagtrail.server import sockets
from tagtrail.server.listing import Listing

# The most connections held at a time, of one address and in all.
PER_REQUEST_MAX = 16
TOTAL_MAX = 256
# The answer is on its way by then, and the server has closed its side.
ANSWER_S = 5.0
# A client that sends on is read for so long, and given up when it has sent nothing for a while.
READ_S = 30.0
SILENT_S = 5.0
_LOOK_S = 0.02
_BLOCK_BYTES = 1 << 20
_BLOCKS_A_LOOK = 8


@dataclass(slots=True)
class _Held:
    """A second file of a connection."""

    connection: socket.socket
    since: float
    heard: float


class Lingering:
    """The connections of one process that arrived on a port and are about to be closed."""

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic, *, reads: bool = True) -> None:
        """`reads=False` is the tests' hook: nothing is read unless `read_all` is called."""
        self._port = port
        self._reads = reads
        self._clock = clock
        self._held: dict[bytes, _Held] = {}
        self._listing = Listing()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._reader: threading.Thread | None = None
        self._buffer = bytearray(_BLOCK_BYTES)

    def __len__(self) -> int:
        """The number of connections that are held."""
        return len(self._held)

    def hold(self, peer: str) -> None:
        """Hold the connections from an address on which a request may be whose answer is about to close it.

        If no file or thread is free, or too many are held, the connection is closed without this.
        """
        with contextlib.suppress(OSError, RuntimeError):
            found = self._listing.files_of(peer, self._listing.moment())
            mine = [each for file in found if sockets.local_port(file) == self._port and (each := sockets.look(file))]
            now = self._clock()
            for each in sorted(mine, key=lambda each: each.silent_ms)[:PER_REQUEST_MAX]:
                self._add(each, now)

    def _add(self, found: sockets.Connection, now: float) -> None:
        with self._lock:
            known = self._held.get(found.cookie)
            if known is not None:
                known.since = now
            elif len(self._held) < TOTAL_MAX and (held := sockets.duplicate(found)) is not None:
                self._held[found.cookie] = _Held(held, now, now)
                self._some.set()
            if self._reads and self._reader is None:
                # For as long as the process lives.
                self._reader = threading.Thread(target=self._run, name="lingering", daemon=True)
                self._reader.start()

    def _run(self) -> None:
        while True:
            self._some.wait()
            self.read_all()
            time.sleep(_LOOK_S)

    def read_all(self) -> None:
        """Read what has come for those that the server has closed, and let go those that are over."""
        for cookie, held in list(self._held.items()):
            with self._lock:
                if not self._is_wanted(held, self._clock()):
                    del self._held[cookie]
                    held.connection.close()
                if not self._held:
                    self._some.clear()

    def _is_wanted(self, held: _Held, now: float) -> bool:
        state = sockets.state(held.connection)
        if state == sockets.ESTABLISHED:
            # The server has not closed it, and will not if it serves another request.
            held.heard = now
            return now - held.since < ANSWER_S
        if state not in sockets.SHUT_DOWN_BY_US:
            return False
        try:
            for _ in range(_BLOCKS_A_LOOK):
                if not held.connection.recv_into(self._buffer, 0, socket.MSG_DONTWAIT):
                    return False
                held.heard = now
        except BlockingIOError:
            pass
        except OSError:
            return False  # reset by the client
        return now - held.heard < SILENT_S and now - held.since < ANSWER_S + READ_S
