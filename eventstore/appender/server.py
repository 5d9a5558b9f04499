"""The appender's side: it appends what other processes of the server send, in batches (rule: one appender).

One thread does everything. While it waits for the database, requests wait in their sockets, so that the next batch
holds all that came meanwhile. Memory is bounded: a connection has one request under way, and nothing is read while
enough is waiting. Requests are taken in the order in which they came, and nobody has more than UNDER_WAY_MAX of them.
"""

import logging
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from eventstore.appender import wire
from eventstore.appender.wire import BadFrame, Status
from eventstore.calls import NOT_BEGUN, Answer, Calls, Pending, is_full
from eventstore.disk_space import DiskSpace
from eventstore.feed.waking import Stop
from eventstore.types import AppendRejected, StoreUnavailable

QUEUE_BYTES_MAX = 16 << 20
READ_BYTES = 1 << 16
BACKLOG = 2048
REFUSED_PAUSE_S = 0.5
# After the order to end: the time that those who append get to finish and to leave.
LEAVING_S = 7.0
_log = logging.getLogger(__name__)


def listen(path: Path) -> socket.socket:
    """A socket of this user alone, on which processes of the server find the appender.

    Who keeps it open while the appender is started again lets them wait instead of refusing them.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Peer:
    """A connection of a process that appends. `waiting` is its request until it is answered."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.unsent = b""
        self.greeted = False
        self.waiting: _Request | None = None


@dataclass(slots=True, eq=False)
class _Request(Pending):
    """A command that a peer waits for."""

    peer: _Peer
    server: "AppendServer"

    def succeed(self, answer: Answer) -> None:
        """See Pending."""
        self.server.answer(self.peer, wire.encode_answer(answer, self.server.session))

    def fail(self, error: Exception) -> None:
        """See Pending."""
        self.server.refuse(self.peer, error)


class AppendServer:
    """Serves the connections that come to `listener`, which the caller keeps. `disk` is the one that `calls` tells."""

    def __init__(self, listener: socket.socket, calls: Calls, disk: DiskSpace, stop: Stop) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._calls = calls
        self._disk = disk
        self._stop = stop
        self._queue: deque[_Request] = deque()
        self._queued_bytes = 0
        self._peers: set[_Peer] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        # Set while no connection can be taken: the time at which that is tried again.
        self._accepts_at: float | None = None
        self._selector.register(stop, selectors.EVENT_READ)

    @property
    def session(self) -> int:
        """The session of the database."""
        return self._calls.session

    def run(self) -> None:
        """Serve until `stop` is set and everybody has left, who gets LEAVING_S for it."""
        self._calls.connect_early()
        until: float | None = None
        while True:
            if self._stop.is_set():
                if until is None:
                    until = time.monotonic() + LEAVING_S
                    self._selector.unregister(self._stop)
                if not self._peers or time.monotonic() > until:
                    break
            if self._queued_bytes < QUEUE_BYTES_MAX:
                self._look(until)
            batch = self._next_batch()
            if batch:
                self._calls.append(batch)
        self._close()

    def answer(self, peer: _Peer, frame: bytes) -> None:
        """Send the answer to the request of the peer, who may have left meanwhile."""
        peer.waiting = None
        peer.unsent += frame
        self._send(peer)

    def refuse(self, peer: _Peer, error: Exception) -> None:
        """Send an error."""
        status = Status.REJECTED if isinstance(error, AppendRejected) else Status.UNAVAILABLE
        self.answer(peer, wire.encode_failure(status, str(error), self.session, self._disk.problem))

    def _look(self, until: float | None) -> None:
        """Take what has come. Wait for something if nothing is to be done."""
        if self._accepts_at is not None and time.monotonic() >= self._accepts_at:
            self._accepts_at = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        times = [each for each in (until, self._accepts_at) if each is not None]
        wait_s = max(0.0, min(times) - time.monotonic()) if times else None
        for key, events in self._selector.select(0 if self._queue else wait_s):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Peer):
                if events & selectors.EVENT_WRITE:
                    self._send(key.data)
                if events & selectors.EVENT_READ:
                    self._read(key.data)

    def _accept(self) -> None:
        """Take all who wait, so that their requests go together."""
        try:
            while True:
                self._greet(self._listener.accept()[0])
        except BlockingIOError:
            return
        except OSError as problem:
            # Those that are there already go on meanwhile.
            _log.warning("a connection to the appender could not be taken: %s", problem)
            self._selector.unregister(self._listener)
            self._accepts_at = time.monotonic() + REFUSED_PAUSE_S

    def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        peer = _Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        peer.unsent = wire.HELLO
        self._send(peer)
        # Its HELLO has come with it, and perhaps its first request.
        self._read(peer)

    def _read(self, peer: _Peer) -> None:
        """Read all there is, so that it is known, too, if the peer has left behind its request."""
        while peer in self._peers:
            try:
                came = peer.connection.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                came = b""
            if not came:
                self._drop(peer)
                return
            peer.received += came
            try:
                self._take(peer)
            except BadFrame as problem:
                _log.error("a process that appends does not keep to the protocol: %s", problem)
                self._drop(peer)

    def _take(self, peer: _Peer) -> None:
        """Queue the request if it has come whole. Raises BadFrame."""
        if not peer.greeted:
            if len(peer.received) < len(wire.HELLO):
                return
            if not peer.received.startswith(wire.HELLO):
                raise BadFrame("it is of another version")
            del peer.received[: len(wire.HELLO)]
            peer.greeted = True
        length = wire.request_bytes(peer.received)
        if length is None or len(peer.received) < length:
            return
        if peer.waiting is not None or len(peer.received) > length:
            raise BadFrame("a request before the answer to the one before it")
        text, deadline, cells, logs = wire.decode_request(peer.received)
        peer.received = bytearray()
        peer.waiting = _Request(text, cells, deadline, logs, peer, self)
        self._queue.append(peer.waiting)
        self._queued_bytes += len(text)

    def _next_batch(self) -> list[Pending]:
        """The requests that came first, up to the limits. One whose time is over is refused."""
        batch: list[Pending] = []
        size = 0
        now = time.monotonic()
        while self._queue and not is_full(batch, size + len(self._queue[0].text)):
            request = self._queue.popleft()
            self._queued_bytes -= len(request.text)
            if request.deadline <= now:
                request.fail(StoreUnavailable(NOT_BEGUN))
                continue
            size += len(request.text)
            batch.append(request)
        return batch

    def _send(self, peer: _Peer) -> None:
        if peer not in self._peers or not peer.unsent:
            return
        try:
            sent = peer.connection.send(peer.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(peer)
            return
        peer.unsent = peer.unsent[sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.unsent else 0)
        if self._selector.get_key(peer.connection).events != wanted:
            self._selector.modify(peer.connection, wanted, peer)

    def _drop(self, peer: _Peer) -> None:
        """Forget a peer who left. Nobody waits for what was not sent yet, so that is not appended."""
        if peer not in self._peers:
            return
        self._peers.remove(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.waiting is not None and peer.waiting in self._queue:
            self._queue.remove(peer.waiting)
            self._queued_bytes -= len(peer.waiting.text)

    def _close(self) -> None:
        for peer in list(self._peers):
            self._drop(peer)
        self._selector.close()
        self._calls.disconnect()
