"""A request as the handlers see it and the answer that they give: plain values, no framework."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from domain.digests import Digest, InvalidDigest, parse_digest
from domain.names import InvalidName, RepositoryName, parse_repository_name
from protocol.errors import Code, WireError, error
from protocol.routes import Kind, Route

Headers = list[tuple[str, str]]
Environ = Mapping[str, Any]

_FULL_RETRY_S = "30"

ANONYMOUS = "anonymous"

# W3C Trace Context, section 3.2. Versions after 00 may have more behind a dash; ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)


@dataclass(slots=True)
class Request:
    """One request. `environ` is the WSGI environment; `actor` names the account, decided before any handler runs."""

    method: str
    route: Route
    environ: Environ
    request_id: str
    actor: str = ANONYMOUS
    _query: dict[str, list[str]] | None = None

    @property
    def path(self) -> str:
        """The path as it came, decoded."""
        return str(self.environ["PATH_INFO"])

    @property
    def query(self) -> dict[str, list[str]]:
        """The query parameters, each with all its values in order; empty values are kept."""
        if self._query is None:
            text = self.environ.get("QUERY_STRING", "")
            try:
                self._query = parse_qs(text, keep_blank_values=True, max_num_fields=1000) if text else {}
            except ValueError as problem:
                raise error(Code.UNSUPPORTED, "too many query parameters", status=400) from problem
        return self._query

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter, or None."""
        values = self.query.get(name)
        return values[0] if values else None

    def header(self, name: str) -> str | None:
        """A request header by its usual name, or None."""
        value: str | None = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

    @property
    def content_type(self) -> str:
        """The Content-Type as sent, or the empty text."""
        return str(self.environ.get("CONTENT_TYPE") or "")

    @property
    def address(self) -> str:
        """The client's address as the server saw it."""
        return str(self.environ.get("REMOTE_ADDR") or "")

    @property
    def user_agent(self) -> str | None:
        """The client's User-Agent, cut to 255 characters."""
        value = self.header("User-Agent")
        return value[:255] if value else None

    @property
    def trace_id(self) -> str | None:
        """The trace-id of the request's `traceparent`; None if that is missing or malformed."""
        given = _TRACEPARENT.fullmatch(self.header("traceparent") or "")
        if given is None or (given["version"] == "00" and given["more"]):
            return None
        return given["trace"]

    @property
    def repository(self) -> RepositoryName:
        """The validated repository name; raises 400 NAME_INVALID."""
        try:
            return parse_repository_name(self.route.name)
        except InvalidName as problem:
            raise error(Code.NAME_INVALID, str(problem)) from problem

    @property
    def digest(self) -> Digest:
        """The route's reference as a digest; raises 400 DIGEST_INVALID."""
        return digest_or_error(self.route.reference)


def digest_or_error(text: str) -> Digest:
    """The digest that `text` spells; raises 400 DIGEST_INVALID for malformed and unsupported ones alike."""
    try:
        return parse_digest(text)
    except InvalidDigest as problem:
        raise error(Code.DIGEST_INVALID, str(problem), {"digest": text[:200]}) from problem


@dataclass(slots=True)
class Answer:
    """A status, headers and a body of bytes or of blocks."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""


Handler = Callable[[Request], Answer]
Handlers = Mapping[tuple[Kind, str], Handler]


def empty(status: int, headers: Headers | None = None) -> Answer:
    """An answer without a body, with Content-Length 0 where the status allows one."""
    made = list(headers or [])
    if status != 204 and status != 304:
        made.append(("Content-Length", "0"))
    return Answer(status, made)


def json_answer(status: int, body: bytes, headers: Headers | None = None) -> Answer:
    """An answer that carries JSON."""
    return Answer(
        status,
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *(headers or [])],
        body,
    )


def error_answer(problem: WireError) -> Answer:
    """The answer for an error. No cache may keep it, because what is missing now may be pushed the next moment."""
    return json_answer(problem.status, problem.body(), [("Cache-Control", "no-store"), *problem.headers])


def unknown_path() -> WireError:
    """404 for a path that the protocol does not know."""
    return error(Code.UNSUPPORTED, "the path is not part of the registry's protocol", status=404)


def storage_full(headers: Sequence[tuple[str, str]] = ()) -> WireError:
    """503 because the disk is full. Clients try again later, when there may be space."""
    return error(
        Code.UNAVAILABLE, "the storage is full, try again later", headers=[*headers, ("Retry-After", _FULL_RETRY_S)]
    )


def not_allowed(methods: Iterable[str]) -> WireError:
    """405 with the methods that the path takes."""
    allow = ", ".join(sorted(set(methods)))
    return error(Code.UNSUPPORTED, f"this path takes {allow}", headers=[("Allow", allow)])
