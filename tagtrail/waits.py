"""Counts the reads of bodies that wait for their clients, with the address of the connection's other end.

A read cannot be broken off, and it does not know its connection. So the watch of connections
(tagtrail.server.silence) learns here for which addresses reads have waited too long.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BodyWaits:
    """The reads of one process that wait at the moment; used by all its threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._open: dict[int, tuple[str, float]] = {}

    @contextmanager
    def waiting(self, peer: str) -> Iterator[None]:
        """Count a read from a peer's connection for as long as a block runs."""
        number = next(self._numbers)
        self._open[number] = (peer, self._clock())
        try:
            yield
        finally:
            del self._open[number]

    def peers(self, before: float = float("inf")) -> Counter[str]:
        """The number of waiting reads that began before a moment, by address."""
        return Counter(peer for peer, since in list(self._open.values()) if since < before)
