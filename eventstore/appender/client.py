"""The side of a process that appends through its server's appender (rule: one appender).

The thread that appends sends its command and waits for the answer itself, on a connection that no other thread uses
meanwhile.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from eventstore.appender import wire
from eventstore.appender.outage import Outage
from eventstore.appender.turns import Turns
from eventstore.appender.wire import Reply, Status
from eventstore.calls import NOT_BEGUN, RETRY_PAUSE_MAX_S, RETRY_PAUSE_S, Answer
from eventstore.combiner import Combiner
from eventstore.disk_space import DiskSpace
from eventstore.types import HISTORY, AppendRejected, StoreUnavailable

# Commands that one process has under way at a time. The others wait their turn in it, so that nobody fills the
# appender's queue.
UNDER_WAY_MAX = 64
_READ_BYTES = 1 << 16
_UNKNOWN = "the append did not end in time; its outcome is unknown"
_log = logging.getLogger(__name__)


class _OtherVersion(Exception):
    """The appender is of another release; it has not looked at the command."""


class _NotReached(OSError):
    """The appender has not got the whole command, so it did nothing."""


class _Line:
    """One connection to the appender, used by one thread at a time."""

    def __init__(self, path: Path, deadline: float) -> None:
        """Raises _NotReached and _OtherVersion."""
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as problem:
            raise _NotReached(str(problem)) from problem
        try:
            self._greet(path, deadline)
        except OSError as problem:
            self._socket.close()
            raise _NotReached(str(problem)) from problem
        except _OtherVersion:
            self._socket.close()
            raise

    def _greet(self, path: Path, deadline: float) -> None:
        """Connect, and see that the appender is of this release. One of another closes before it has read a request."""
        self._bound(deadline)
        self._socket.connect(str(path))
        self._socket.sendall(wire.HELLO)
        received = b""
        while len(received) < len(wire.HELLO):
            received += self._receive(deadline)
        if received != wire.HELLO:
            raise _OtherVersion

    def exchange(self, request: bytes, deadline: float) -> Reply:
        """The answer to a request. Raises OSError, _NotReached and TimeoutError among them."""
        try:
            self._bound(deadline)
            self._socket.sendall(request)
        except OSError as problem:
            raise _NotReached(str(problem)) from problem
        received = b""
        while (reply := wire.decode_reply(received)) is None:
            received += self._receive(deadline)
        return reply

    def close(self) -> None:
        """End it; the appender then forgets a command that it has not sent yet."""
        self._socket.close()

    def _receive(self, deadline: float) -> bytes:
        self._bound(deadline)
        came = self._socket.recv(_READ_BYTES)
        if not came:
            raise ConnectionResetError("the appender closed the connection")
        return came

    def _bound(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time is over")
        self._socket.settimeout(left_s)


class AppenderClient:
    """Appends through the appender that listens at `path`; for any number of threads.

    If a connection is lost, the same command is sent again on another one until the outcome is known or the time is
    over. The appender is started again meanwhile. `direct` makes what appends without it, should it be of another
    release. `disk` is told the results, `outage` whether they come. `on_session` is called when the appender has
    connected to the database anew.
    """

    def __init__(
        self,
        path: Path,
        disk: DiskSpace,
        outage: Outage,
        *,
        direct: Callable[[], Combiner],
        on_session: Callable[[], None],
    ) -> None:
        self._path = path
        self._disk = disk
        self._outage = outage
        self._make_direct = direct
        self._on_session = on_session
        self._turns = Turns(UNDER_WAY_MAX)
        self._lock = threading.Lock()
        self._idle: list[_Line] = []
        self._direct: Combiner | None = None
        self._session = 0
        self._closed = False

    def append(
        self, text: str, timeout_s: float, cells: Collection[int] = (), logs: Collection[int] = (HISTORY,)
    ) -> Answer:
        """As Combiner.append."""
        direct = self._direct
        if direct is not None:
            return direct.append(text, timeout_s, cells, logs)
        deadline = time.monotonic() + timeout_s
        if not self._turns.take(timeout_s):
            raise StoreUnavailable(NOT_BEGUN)
        try:
            reply = self._asked(wire.encode_request(text, deadline, cells, logs), deadline)
        finally:
            self._turns.give_back()
        if reply is None:
            return self._appending_directly().append(text, max(0.0, deadline - time.monotonic()), cells, logs)
        self._note(reply)
        if reply.status is Status.REJECTED:
            raise AppendRejected(reply.body)
        if reply.status is Status.UNAVAILABLE:
            raise StoreUnavailable(reply.body)
        answer: Answer = json.loads(reply.body)
        return answer

    def close(self, timeout_s: float) -> None:
        """Take no more commands, and close the connections that no thread uses; the others follow."""
        with self._lock:
            self._closed = True
            direct, self._direct = self._direct, None
        self._close_idle()
        if direct is not None:
            direct.close(timeout_s)

    def _asked(self, request: bytes, deadline: float) -> Reply | None:
        """The answer; None if the appender is of another release and has looked at nothing.

        Raises StoreUnavailable.
        """
        perhaps_appended = False
        pause = RETRY_PAUSE_S
        while True:
            try:
                reply = self._exchange(request, deadline)
            except _OtherVersion:
                # An outcome that is unknown is asked for where it may still be under way, and nowhere else.
                self._outage.answered()
                if perhaps_appended:
                    raise StoreUnavailable("the appender was replaced; the outcome is unknown") from None
                return None
            except OSError as problem:
                perhaps_appended |= not isinstance(problem, _NotReached)
                self._outage.missed(problem)
                if time.monotonic() + pause >= deadline:
                    self._outage.gave_up()
                    raise StoreUnavailable(_UNKNOWN if perhaps_appended else NOT_BEGUN) from problem
                time.sleep(pause)
                pause = min(2 * pause, RETRY_PAUSE_MAX_S)
            else:
                self._outage.answered()
                # A successor knows only of what it did itself.
                unknown = perhaps_appended and reply.status is Status.UNAVAILABLE
                return replace(reply, body=_UNKNOWN) if unknown else reply

    def _exchange(self, request: bytes, deadline: float) -> Reply:
        line = self._take_line(deadline)
        try:
            reply = line.exchange(request, deadline)
        except BaseException:
            line.close()
            # The others lead to the same appender, which may be dead.
            self._close_idle()
            raise
        self._give_back(line)
        return reply

    def _take_line(self, deadline: float) -> _Line:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if self._idle:
                return self._idle.pop()
        return _Line(self._path, deadline)

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(line)
                return
        line.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def _appending_directly(self) -> Combiner:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if self._direct is None:
                _log.warning("the appender is of another release, so this process appends by itself")
                self._direct = self._make_direct()
            return self._direct

    def _note(self, reply: Reply) -> None:
        if reply.status is Status.ANSWERED:
            self._disk.found()
        elif reply.disk_problem:
            self._disk.refused(reply.disk_problem)
        if reply.session != self._session:
            self._session = reply.session
            self._on_session()
