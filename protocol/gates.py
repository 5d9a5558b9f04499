"""Limits on what clients do at once, in all and for each client. Each process counts for itself."""

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

_IPV6_PREFIX = 64


class TooMany(Exception):
    """The client's address, or all clients together, have taken all their places: 429."""


def _nobody(_: str) -> bool:
    return False


@lru_cache(maxsize=4096)
def _client_of(address: str) -> str:
    """The unit that counts as one client: an IPv4 address, or the IPv6 network of 64 bits that one client has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, _IPV6_PREFIX), strict=False))


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
        client = _client_of(address)
        with self._lock:
            if self._total >= self._total_max or (not exempt and self._inside[client] >= self._per_address_max):
                raise TooMany(address)
            self._inside[client] += 1
            self._total += 1

    def leave(self, address: str) -> None:
        """Give a place back."""
        client = _client_of(address)
        with self._lock:
            self._total -= 1
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Hold a place for as long as a block runs; raises TooMany."""
        self.enter(address)
        try:
            yield
        finally:
            self.leave(address)
