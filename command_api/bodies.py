"""Reading request bodies: bounded memory, a minimum rate, a bounded number of open ones.

The server's reads block until the asked number of bytes has come or the body ends, and a blocked read cannot be
interrupted. So a read asks for no more than a client at the minimum rate sends in a few seconds, until the client
has shown to be faster; and because a wholly silent client holds its thread until it goes away, the number of open
bodies stays well below the number of threads. See docs/decisions/0003-slow-bodies.md.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

READ_BYTES_MIN = 1024
READ_BYTES_MAX = 1024 * 1024
_READ_S = 5.0
WORKERS_MAX = 8


class BodyError(Exception):
    """Base of what ends a body early."""


class BodyTooSlow(BodyError):
    """The client sends less than the minimum rate: 408."""


class BodyIncomplete(BodyError):
    """The body ended before its Content-Length."""


class TooManyBodies(BodyError):
    """The client's address, or all clients together, have too many bodies open: 429."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How slowly a client may send: below `rate_min_bytes_per_s` on average, after `grace_s` seconds, it is refused."""

    rate_min_bytes_per_s: int = 1024
    grace_s: float = 10.0


class Input(Protocol):
    """The part of wsgi.input that is used."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; blocks until they have come or the body has ended."""


def has_body(environ: Mapping[str, Any]) -> bool:
    """Whether the client sends a body: a length above 0, or chunks."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return True
    return (environ.get("CONTENT_LENGTH") or "0") != "0"


def content_length(environ: Mapping[str, Any]) -> int | None:
    """The announced length in bytes; None for a body in chunks, whose encoding rules over any length (D12)."""
    announced = environ.get("CONTENT_LENGTH")
    if environ.get("HTTP_TRANSFER_ENCODING") or not announced:
        return None
    return int(announced) if announced.isascii() and announced.isdigit() else None


def read_body(
    environ: Mapping[str, Any], limits: BodyLimits, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """The body in blocks of at most 1 MiB.

    Raises BodyTooSlow, and BodyIncomplete if fewer bytes than Content-Length came.
    """
    if not has_body(environ):
        return
    source: Input = environ["wsgi.input"]
    length = content_length(environ)
    started = clock()
    received = 0
    ask = _first_read(limits)
    while length is None or received < length:
        size = ask if length is None else min(ask, length - received)
        block = source.read(size)
        elapsed = clock() - started
        received += len(block)
        if block:
            yield block
        if len(block) < size:
            if length is not None and received < length:
                raise BodyIncomplete(f"{received} of {length} bytes came")
            return
        if elapsed > limits.grace_s and received < elapsed * limits.rate_min_bytes_per_s:
            raise BodyTooSlow(f"the body came at less than {limits.rate_min_bytes_per_s} bytes a second")
        ask = _next_read(received, elapsed, limits)


def _first_read(limits: BodyLimits) -> int:
    """A fast client loses nothing by it, a slow one is noticed within seconds."""
    return max(READ_BYTES_MIN, min(READ_BYTES_MAX, int(limits.rate_min_bytes_per_s * _READ_S)))


def _next_read(received: int, elapsed: float, limits: BodyLimits) -> int:
    """As much as the client should send within a few seconds at the rate that it has shown."""
    shown = received / max(elapsed, 0.001)
    return max(_first_read(limits), min(READ_BYTES_MAX, int(shown * _READ_S)))


class BodyGate:
    """Counts open bodies, in all and for each client address; one for each process."""

    def __init__(self, *, per_address_max: int, total_max: int) -> None:
        self._per_address_max = per_address_max
        self._total_max = total_max
        self._open: Counter[str] = Counter()
        self._total = 0
        self._lock = threading.Lock()

    @contextmanager
    def enter(self, address: str) -> Iterator[None]:
        """Hold one place while a body is read; raises TooManyBodies."""
        with self._lock:
            if self._total >= self._total_max or self._open[address] >= self._per_address_max:
                raise TooManyBodies(address)
            self._open[address] += 1
            self._total += 1
        try:
            yield
        finally:
            with self._lock:
                self._total -= 1
                self._open[address] -= 1
                if not self._open[address]:
                    del self._open[address]


class WorkGate:
    """Lets a few threads work (hash, write, flush) at a time; never held while waiting for a client."""

    def __init__(self, workers_max: int = WORKERS_MAX) -> None:
        self._free = threading.BoundedSemaphore(workers_max)

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()
