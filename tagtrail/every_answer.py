"""The headers that every answer has, and the id of the request in them."""

import itertools
import re
import secrets
from collections.abc import Mapping
from typing import Any

from protocol.messages import Headers
from tagtrail.cross_origin import CrossOrigin

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_API_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")


class EveryAnswer:
    """The headers of every answer of one process."""

    def __init__(self, cross_origin: CrossOrigin) -> None:
        self._cross_origin = cross_origin
        # A request id is a random name of the process and a number: randomness for each would cost a system call.
        self._name = secrets.token_hex(5)
        self._numbers = itertools.count()

    def request_id(self, environ: Mapping[str, Any]) -> str:
        """The id that the client gave, if it is well formed, or else a new one."""
        given: str | None = environ.get("HTTP_X_REQUEST_ID")
        if given and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._name}{next(self._numbers):06x}"

    def headers(self, own: Headers, request_id: str, environ: Mapping[str, Any]) -> Headers:
        """An answer's own headers, and those that every answer has."""
        return [
            *own,
            _API_VERSION,
            _NO_SNIFFING,
            ("X-Request-Id", request_id),
            *self._cross_origin.headers(environ),
        ]
