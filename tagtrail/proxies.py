"""The client of a request behind trusted proxies: the address that the last of them vouches for."""

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The addresses of trusted proxies. Only they are believed when they name the address of a client."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(each) for each in networks)
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client_of(self, environ: Mapping[str, Any]) -> str:
        """The client's address. X-Forwarded-For is read from its end, where each proxy adds the peer that it saw.

        The first address that is no trusted proxy is the client. If an entry is no address, the proxy that wrote it is
        the last one that is known.
        """
        known: str = environ.get("REMOTE_ADDR", "")
        forwarded: str = environ.get("HTTP_X_FORWARDED_FOR", "")
        for entry in reversed(forwarded.split(",")):
            if not self.trusts(known):
                break
            address = _address(entry.strip())
            if address is None:
                break
            known = str(address)
        return known

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in each for each in self._networks)


def _address(text: str) -> Address | None:
    """An address, also in brackets or with a port, as some proxies write it; None for anything else."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
