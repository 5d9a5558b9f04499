"""Reads and throws away the rest of a body whose request was already answered.

A connection that is closed with bytes unread is reset by the kernel, and a reset overtakes the answer: the client would
see "broken pipe" and no status. So an answer that is given before the body was read keeps its thread until the rest
has come too, within limits. If little is left, the connection stays open; otherwise the answer says that it will be
closed.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from command_api.bodies import (
    BodyError,
    BodyLimits,
    Input,
    content_length,
    has_body,
    read_body,
)
from protocol.gates import AddressGate, TooMany
from tagtrail.waits import BodyWaits

# The most that is read to keep the connection for the next request.
KEPT_BYTES_MAX = 1 << 20
# The most that is read so that the answer arrives. Clients that listen while they send stop long before.
BYTES_MAX = 256 << 20
SECONDS_MAX = 300.0
# More blocks of an answer than the server takes before it has begun to send it.
_BLOCKS_AHEAD = 8

Environ = dict[str, Any]


class RequestBody:
    """The wsgi.input of a request with a body. It counts what was read and reports each read to `waits`."""

    def __init__(self, environ: Environ, waits: BodyWaits) -> None:
        self._waits = waits
        # The other end of the connection: the client, or a proxy.
        self.peer: str = environ.get("REMOTE_ADDR", "")
        self._source: Input = environ["wsgi.input"]
        self._length = content_length(environ)
        self._asks = environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        self._received = 0
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; blocks until they have come or the body has ended."""
        with self._waits.waiting(self.peer):
            block = self._source.read(size)
        self._received += len(block)
        self._ended = len(block) < size
        return block

    @property
    def ended(self) -> bool:
        """True if nothing is left to read."""
        return self._ended or self._received == self._length

    @property
    def left(self) -> int | None:
        """The number of bytes left; None for a body in chunks, which does not say."""
        return None if self._length is None else self._length - self._received

    @property
    def asking(self) -> bool:
        """True if the client waits to be told to send the body; the first read tells it."""
        return self._asks and not self._received

    def rest(self) -> Environ:
        """The environment of a request whose body is the rest."""
        left = self.left
        length = {"HTTP_TRANSFER_ENCODING": "chunked"} if left is None else {"CONTENT_LENGTH": str(left)}
        return {"wsgi.input": self, **length}


def take_body(environ: Environ, waits: BodyWaits) -> RequestBody | None:
    """Put a RequestBody in the place of wsgi.input; None for a request without a body.

    REMOTE_ADDR must still be the address of the connection, whatever a proxy says.
    """
    if not has_body(environ):
        return None
    body = environ["wsgi.input"] = RequestBody(environ, waits)
    return body


class Drain:
    """Reads the rests of as many bodies at once as the gate lets in.

    If the gate lets in no more, `linger` is given the address of the peer whose connection is closed at once.
    """

    def __init__(
        self,
        limits: BodyLimits,
        gate: AddressGate,
        linger: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._gate = gate
        self._linger = linger
        self._clock = clock

    def after(self, answer: Iterable[bytes], body: RequestBody, address: str) -> tuple[Iterable[bytes], bool]:
        """The answer, which reads the rest of the body once it was sent; and True if its connection stays open.

        If the gate is full, the rest is not read, and the connection is closed at once.
        """
        if body.ended:
            return answer, True
        place = ExitStack()
        try:
            place.enter_context(self._gate.inside(address))
        except TooMany:
            self._linger(body.peer)
            return answer, False
        kept = body.left is not None and body.left <= KEPT_BYTES_MAX and not body.asking
        return _Drained(answer, body.asking, lambda: self._read(body, place)), kept

    def _read(self, body: RequestBody, place: ExitStack) -> None:
        deadline = self._clock() + SECONDS_MAX
        received = 0
        with place:
            try:
                for block in read_body(body.rest(), self._limits, self._clock):
                    received += len(block)
                    if received > BYTES_MAX or self._clock() > deadline:
                        return
            except BodyError:
                return  # too slow, or its client has left: there is nobody to wait for


class _Drained:
    """An answer with work to do once all of it was handed over.

    Reading a body that waits for 100 Continue tells the client to send it, unless the answer is on its way. It is on
    its way when the server takes no more blocks. The server takes a few before it begins, so empty ones are offered.
    """

    # See tagtrail.server.senders: the rest of a body is read by the thread that was given the request.
    stays = True

    def __init__(self, answer: Iterable[bytes], wait: bool, at_end: Callable[[], None]) -> None:
        self._answer = answer
        self._ahead = _BLOCKS_AHEAD if wait else 0
        self._at_end = at_end

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer
        for _ in range(self._ahead):
            yield b""

    def close(self) -> None:
        """Called once by the server, also if its client has left."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._at_end()
