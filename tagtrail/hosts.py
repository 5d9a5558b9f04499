"""The Host of a request (RFC 9112 section 3.2), and the names to which a server on loopback answers.

A page of any site can let its own name point to 127.0.0.1 (DNS rebinding), and its browser then takes this server for
that site. As nobody has to log in, the page could pull and delete. But the browser sends the site's name as Host. So a
server that only this machine reaches answers only to names of this machine and to those that it was given.
"""

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from protocol.errors import Code, error
from tagtrail.config import Settings

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,255})(:[0-9]{0,5})?")
# A longer one is malformed. It must not be kept, because a head may have 256 KiB.
_BYTES_MAX = 300
_KEPT = 1024


class _Verdict(Enum):
    GOOD = auto()
    MALFORMED = auto()
    STRANGE = auto()


class Hosts:
    """The rule for the Host of requests; `names` is None if every name is right."""

    def __init__(self, names: frozenset[str] | None) -> None:
        self._names = names
        self._judged = lru_cache(_KEPT)(self._judge)

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raises 400 for a Host that is missing, there twice or malformed, and 403 for one that is not ours."""
        host = environ.get("HTTP_HOST", "")
        verdict = self._judged(host) if len(host) <= _BYTES_MAX else _Verdict.MALFORMED
        if verdict is _Verdict.GOOD:
            return
        if verdict is _Verdict.STRANGE:
            raise error(
                Code.DENIED,
                "this server listens on loopback and answers to names of this machine only; "
                "start it with --allow-host or --public-url to let it answer to this one",
                {"host": host[:255]},
            )
        # The server gives an empty Host if there is none. HTTP/1.0 needs none, and no browser speaks it.
        if host or environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            raise error(Code.UNSUPPORTED, "a request has one Host header, a name or an address", status=400)

    def _judge(self, host: str) -> _Verdict:
        found = _HOST.fullmatch(host)
        if found is None:
            return _Verdict.MALFORMED
        if self._names is None:
            return _Verdict.GOOD
        name = found[1].strip("[]").lower().removesuffix(".")
        return _Verdict.GOOD if name in self._names or _is_of_this_machine(name) else _Verdict.STRANGE


def hosts_of(settings: Settings) -> Hosts:
    """The names to which a server of these settings answers: all, if other machines reach it."""
    if not settings.loopback:
        return Hosts(None)
    return Hosts(frozenset(names_given(settings)))


def names_given(settings: Settings) -> list[str]:
    """The names that an operator gave to the server."""
    public = urlsplit(settings.public_url or "").hostname
    return [*([] if public is None else [public]), *settings.allow_host]


def _is_of_this_machine(name: str) -> bool:
    """True if a name means loopback whatever a name server says (RFC 6761 section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
