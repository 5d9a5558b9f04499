"""Reading request bodies: bounded memory, a minimum rate. The number of open ones is bounded by `protocol.gates`.

The server's reads block until the asked number of bytes has come or the body ends, and a blocked read cannot be
interrupted. So a read asks for no more than the client has shown to send within a few seconds; and because a wholly
silent client holds its thread until it goes away, the number of open bodies stays well below the number of threads.
See docs/decisions/0003-slow-bodies.md.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# Few enough for a client of one byte a second to be noticed soon after its grace.
READ_BYTES_FIRST = 16
# As fast as larger blocks, and some of each open body's blocks wait in memory for the hashing.
READ_BYTES_MAX = 256 * 1024
_READ_S = 5.0
# Three small reads until a fast client is read in blocks of the full size.
_GROWTH = 64


class BodyError(Exception):
    """Base of the errors that end a body early."""


class BodyTooSlow(BodyError):
    """The client sends less than the minimum rate: 408."""


class BodyIncomplete(BodyError):
    """The body ended before its Content-Length."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The least rate of a client: it may fall `grace_s` seconds behind `rate_min_bytes_per_s`; 0 allows any rate."""

    rate_min_bytes_per_s: int = 1024
    grace_s: float = 10.0


class Input(Protocol):
    """The part of wsgi.input that is used."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; blocks until they have come or the body has ended."""


def has_body(environ: Mapping[str, Any]) -> bool:
    """True if the client may send a body: a length above 0, or chunks."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return True
    return environ.get("CONTENT_LENGTH") not in (None, "", "0")


def content_length(environ: Mapping[str, Any]) -> int | None:
    """The announced length in bytes; None for a body in chunks (rule: encoding rules over length)."""
    announced = environ.get("CONTENT_LENGTH")
    if environ.get("HTTP_TRANSFER_ENCODING") or not announced:
        return None
    return int(announced) if announced.isascii() and announced.isdigit() else None


def read_body(
    environ: Mapping[str, Any], limits: BodyLimits, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """The body in blocks of at most 256 KiB; `clock` gives seconds that never go back.

    Raises BodyTooSlow, and BodyIncomplete if fewer bytes than Content-Length came. Only the time of waiting for the
    client counts against it, not the work on a block.
    """
    if not has_body(environ):
        return
    source: Input = environ["wsgi.input"]
    length = content_length(environ)
    pace = _Pace(limits)
    while length is None or pace.received < length:
        size = pace.next_read if length is None else min(pace.next_read, length - pace.received)
        started = clock()
        block = source.read(size)
        pace.took(len(block), clock() - started)
        ended = len(block) < size
        if not ended and pace.too_slow and pace.received != length:
            raise BodyTooSlow(f"the body came at less than {limits.rate_min_bytes_per_s} bytes a second")
        if block:
            yield block
        if ended:
            break
    if length is not None and pace.received < length:
        raise BodyIncomplete(f"{pace.received} of {length} bytes came")


class _Pace:
    """The pace of one client: the size of the next read, and the slack that it has left."""

    def __init__(self, limits: BodyLimits) -> None:
        self.received = 0
        self.next_read = READ_BYTES_FIRST
        self._limits = limits
        self._slack_s = limits.grace_s
        self._waited_s = 0.0

    @property
    def too_slow(self) -> bool:
        """True if the client is more than its grace behind the minimum rate."""
        return self._slack_s < 0

    def took(self, size: int, waited_s: float) -> None:
        """Count a read. A fast stretch earns no more slack than the grace: it cannot pay for a stall later."""
        self.received += size
        self._waited_s += waited_s
        rate_min = self._limits.rate_min_bytes_per_s
        if rate_min:
            self._slack_s = min(self._limits.grace_s, self._slack_s + size / rate_min - waited_s)
        # The mean forgets slowly, and the last read may have come from a buffer, so the smaller one counts.
        shown = min(self.received / max(self._waited_s, 1e-6), size / max(waited_s, 1e-6))
        ask = min(READ_BYTES_MAX, self.received * _GROWTH, int(shown * _READ_S))
        if ask == READ_BYTES_MAX:
            # Up to a multiple of it: what is written at such places costs the system less.
            ask -= self.received % READ_BYTES_MAX
        self.next_read = max(READ_BYTES_FIRST, ask)
