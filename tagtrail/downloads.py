"""Answers that a client may take long to read: counted, and handed to the server in small blocks.

The server writes an answer of one piece by itself. An answer of several blocks holds a thread until the last block is
on its way, and its client decides when that is. So the number of such answers is bounded, for each address and in all.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from blobstore.pace import WHOLE_BYTES_MAX, Allowance, Pace
from protocol.errors import Code, error
from protocol.gates import AddressGate, TooMany
from protocol.messages import Answer

_RETRY_AFTER_S = 5
# A thread that waits for the interpreter wakes up at this interval to ask for it. With Python's own 5 ms, a thousand
# downloads that began at once took all the time by waking up, and nobody else was served.
_SWITCH_INTERVAL_S = 0.005
_SWITCH_INTERVAL_S_EACH = 0.00005


class Downloads:
    """The downloads of one process."""

    def __init__(self, gate: AddressGate, allowance: Allowance) -> None:
        self._gate = gate
        self._allowance = allowance
        self._setting = threading.Lock()

    def admit(self, answer: Answer, address: str) -> Answer:
        """The answer to a GET, ready to go out. A large one holds a place until it ends. Raises 429 if none is free."""
        body = answer.body
        if isinstance(body, list) or (isinstance(body, bytes) and len(body) <= WHOLE_BYTES_MAX):
            return answer
        try:
            self._enter(address)
        except TooMany as problem:
            close(body)
            raise error(
                Code.TOOMANYREQUESTS,
                "too many downloads are under way",
                headers=[("Retry-After", str(_RETRY_AFTER_S))],
            ) from problem
        blocks = MemoryBlocks(body, Pace(self._allowance)) if isinstance(body, bytes) else body
        return Answer(answer.status, answer.headers, _Held(blocks, lambda: self._leave(address)))

    def _enter(self, address: str) -> None:
        self._gate.enter(address)
        self._set_interval()

    def _leave(self, address: str) -> None:
        self._gate.leave(address)
        self._set_interval()

    def _set_interval(self) -> None:
        # Under a lock, so that the last one to set it has counted all.
        with self._setting:
            sys.setswitchinterval(_SWITCH_INTERVAL_S + self._gate.total * _SWITCH_INTERVAL_S_EACH)


class MemoryBlocks:
    """Blocks of bytes that are in memory already, so that the server does not copy all of them for each reader."""

    def __init__(self, body: bytes, pace: Pace) -> None:
        self._body = body
        self._position = 0
        self._pace = pace

    def __iter__(self) -> "MemoryBlocks":
        return self

    def __next__(self) -> bytes:
        left = len(self._body) - self._position
        if not left:
            if self._pace.must_wait():
                return b""
            raise StopIteration
        start = self._position
        self._position += self._pace.next_size(left)
        return self._body[start : self._position]

    def close(self) -> None:
        """Give back what was held; may be called any number of times."""
        self._pace.end()


class _Held:
    """A body that holds a place. The server takes its blocks without calling this class."""

    def __init__(self, body: Iterable[bytes], leave: Callable[[], None]) -> None:
        self._body = body
        self._leave: Callable[[], None] | None = leave

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the body and give the place back; may be called any number of times."""
        leave, self._leave = self._leave, None
        if leave is not None:
            try:
                close(self._body)
            finally:
                leave()

    def __del__(self) -> None:
        # Nobody else closes a body that the server never began to read.
        self.close()


def close(body: object) -> None:
    """Close a body that can be closed."""
    end = getattr(body, "close", None)
    if end is not None:
        end()
