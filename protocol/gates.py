"""Limits on what clients do at once, in all and for each client address. Each process counts for itself."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TooMany(Exception):
    """The client's address, or all clients together, have taken all their places: 429."""


def _nobody(_: str) -> bool:
    return False


class AddressGate:
    """Counts places. An `exempt` address counts towards the total but has no limit of its own."""

    def __init__(self, *, per_address_max: int, total_max: int, exempt: Callable[[str], bool] = _nobody) -> None:
        self._per_address_max = per_address_max
        self._total_max = total_max
        self._exempt = exempt
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """The number of places taken now."""
        return self._total

    def enter(self, address: str) -> None:
        """Take a place until `leave`; raises TooMany."""
        exempt = self._exempt(address)
        with self._lock:
            if self._total >= self._total_max or (not exempt and self._inside[address] >= self._per_address_max):
                raise TooMany(address)
            self._inside[address] += 1
            self._total += 1

    def leave(self, address: str) -> None:
        """Give a place back."""
        with self._lock:
            self._total -= 1
            self._inside[address] -= 1
            if not self._inside[address]:
                del self._inside[address]

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Hold a place for as long as a block runs; raises TooMany."""
        self.enter(address)
        try:
            yield
        finally:
            self.leave(address)
