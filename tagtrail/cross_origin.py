"""Tells browsers which pages of other origins may call (CORS in the Fetch standard)."""

from collections.abc import Mapping
from typing import Any

from protocol.messages import Answer, Headers, empty

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
# Headers of the protocol's requests, besides those that browsers let every page send.
_REQUEST_HEADERS = (
    "Accept, Authorization, Content-Range, Content-Type, If-Match, If-None-Match, If-Range, Range, X-Request-Id"
)
# Headers that clients of the protocol read, besides those that browsers show to every page.
_ANSWER_HEADERS = ", ".join(
    [
        "Accept-Ranges",
        "Allow",
        "Content-Range",
        "Docker-Content-Digest",
        "Docker-Distribution-API-Version",
        "Docker-Upload-UUID",
        "ETag",
        "Link",
        "Location",
        "OCI-Chunk-Min-Length",
        "OCI-Filters-Applied",
        "OCI-Subject",
        "OCI-Tag",
        "Range",
        "Retry-After",
        "WWW-Authenticate",
        "Warning",
        "X-Request-Id",
    ]
)
# The longest time for which any browser keeps it.
_PREFLIGHT_S = "7200"
ANY = "*"


class CrossOrigin:
    """The origins whose pages may call. If there are none, no answer lets any page call."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def headers(self, environ: Mapping[str, Any]) -> Headers:
        """Headers that go with an answer."""
        if not self._origins:
            return []
        # Caches on the way must not give the answer for one origin to another.
        vary: Headers = [] if ANY in self._origins else [("Vary", "Origin")]
        allowed = self._allowed(environ)
        if allowed is None:
            return vary
        return [*vary, ("Access-Control-Allow-Origin", allowed), ("Access-Control-Expose-Headers", _ANSWER_HEADERS)]

    def preflight(self, environ: Mapping[str, Any]) -> Answer | None:
        """The answer to a browser that asks before it sends a page's request; None for any other request."""
        if environ["REQUEST_METHOD"] != "OPTIONS" or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
            return None
        if self._allowed(environ) is None:
            return None
        return empty(
            204,
            [
                ("Access-Control-Allow-Methods", _METHODS),
                ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
                ("Access-Control-Max-Age", _PREFLIGHT_S),
            ],
        )

    def _allowed(self, environ: Mapping[str, Any]) -> str | None:
        """The origin as the answer names it, if its pages may call."""
        origin: str | None = environ.get("HTTP_ORIGIN")
        if origin is None:
            return None
        if ANY in self._origins:
            return ANY
        return origin if origin in self._origins else None
