"""The WSGI shell of an API process: request ids, pulls and pushes before Flask, answers for errors, the access log.

Plain functions serve the requests of every pull and push: GET and HEAD of /v2/, manifests and blobs, uploads, PUT of a
manifest. Flask would take three quarters of the time of such a GET, and a fifth of the time of an upload's request.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flask import Flask

from blobstore.interface import BlobStoreError, NoSpace
from domain.event import UnknownEvent
from eventstore.types import FeatureNotInUse, StoreUnavailable
from projections.model import FoldFailed
from protocol.errors import Code, WireError, error
from protocol.messages import (
    Answer,
    Handlers,
    Headers,
    Request,
    error_answer,
    not_allowed,
    storage_full,
    unknown_path,
)
from protocol.routes import parse_path
from query_api.cache import AnswerCache, Served
from tagtrail import logs
from tagtrail.at_once import AtOnce, Whole
from tagtrail.cross_origin import CrossOrigin
from tagtrail.downloads import Downloads, close
from tagtrail.draining import Drain, take_body
from tagtrail.every_answer import EveryAnswer
from tagtrail.flask_app import REQUEST_KEY, WIRE_PATH
from tagtrail.hosts import Hosts
from tagtrail.proxies import TrustedProxies
from tagtrail.waits import BodyWaits

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_RETRY_AFTER_S = "2"
_CLOSE = ("Connection", "close")
_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content"}


class Application:
    """The WSGI callable of one API process."""

    def __init__(
        self,
        cache: AnswerCache,
        always: Mapping[str, Served],
        direct: Handlers,
        wire: Handlers,
        flask_app: Flask,
        checks: Mapping[str, Callable[[], Answer]],
        *,
        drain: Drain,
        proxies: TrustedProxies,
        downloads: Downloads,
        refusal: Callable[[], str | None],
        hosts: Hosts,
        cross_origin: CrossOrigin,
        public_url: str | None,
        access_log: bool,
    ) -> None:
        # The reads that wait for bytes of a body from their clients.
        self.waits = BodyWaits()
        self._cache = cache
        self._every = EveryAnswer(cross_origin)
        self._at_once = AtOnce(cache, always, self._every, hosts, refusal)
        self._direct = direct
        self._wire = wire
        self._flask = flask_app
        self._checks = checks
        self._drain = drain
        self._proxies = proxies
        self._downloads = downloads
        self._refusal = refusal
        self._hosts = hosts
        self._cross_origin = cross_origin
        self._public_url = public_url
        self._access_log = access_log

    def at_once(self, environ: Environ) -> Whole | None:
        """The answer to a request that needs nothing but memory; None if it is to be served by a call.

        A line of the access log may have to wait for whoever reads it.
        """
        return None if self._access_log else self._at_once.answer(environ)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        started = time.monotonic()
        request_id = self._every.request_id(environ)
        sent = take_body(environ, self.waits)
        if self._proxies:
            environ["REMOTE_ADDR"] = self._proxies.client_of(environ)
        answer = self._answer(environ, request_id)
        headers = self._every.headers(self._located(answer.headers), request_id, environ)
        body: Iterable[bytes] = [answer.body] if isinstance(answer.body, bytes) else answer.body
        if environ["REQUEST_METHOD"] == "HEAD":
            close(answer.body)
            body = [b""]
        if self._access_log:
            body = self._logged(environ, answer, body, request_id, started)
        if sent is not None:
            body, kept = self._drain.after(body, sent, environ.get("REMOTE_ADDR", ""))
            if not kept and _CLOSE not in headers:
                headers.append(_CLOSE)
        start_response(f"{answer.status} {_REASONS.get(answer.status, 'Status')}", headers)
        return body

    def _located(self, headers: Headers) -> Headers:
        """The headers, with Location made absolute if the server was told its public URL."""
        if self._public_url is None:
            return headers
        return [
            (name, f"{self._public_url}{value}" if name == "Location" and value.startswith("/") else value)
            for name, value in headers
        ]

    def _answer(self, environ: Environ, request_id: str) -> Answer:
        try:
            answer = self._serve(environ, request_id)
            return self._admitted(environ, answer)
        except WireError as problem:
            return error_answer(problem)
        except FeatureNotInUse as problem:
            logs.refused(request_id, problem)
            reason = f"{problem.name} is used once all processes of this registry know it; some do not, try again"
            return _unavailable(reason, request_id)
        except StoreUnavailable as problem:
            logs.refused(request_id, problem)
            return _unavailable("the database does not answer, try again", request_id)
        except (FoldFailed, UnknownEvent) as problem:
            logs.error_with_trace(request_id, problem)
            return _unavailable("the history of this repository holds what this program cannot read", request_id)
        except NoSpace as problem:
            logs.refused(request_id, problem)
            return error_answer(storage_full())
        except BlobStoreError as problem:
            logs.refused(request_id, problem)
            return _unavailable("the storage does not take or give bytes, try again", request_id)
        except MemoryError as problem:
            logs.error_with_trace(request_id, problem)
            return _unavailable("this process does not have enough memory at the moment, try again", request_id)
        except Exception as problem:  # noqa: BLE001 - the outermost handler: logged with its trace, answered with its id
            logs.error_with_trace(request_id, problem)
            return error_answer(error(Code.UNKNOWN, "internal error", {"request_id": request_id}))

    def _admitted(self, environ: Environ, answer: Answer) -> Answer:
        if environ["REQUEST_METHOD"] != "GET":
            return answer
        return self._downloads.admit(answer, environ.get("REMOTE_ADDR", ""))

    def _serve(self, environ: Environ, request_id: str) -> Answer:
        self._hosts.check(environ)
        path: str = environ["PATH_INFO"]
        method: str = environ["REQUEST_METHOD"]
        served = self._cache.find(path)
        if served is not None and method in ("GET", "HEAD"):
            return served.answer(environ)
        preflight = self._cross_origin.preflight(environ)
        if preflight is not None:
            return preflight
        check = self._checks.get(path)
        if check is not None:
            if method not in ("GET", "HEAD"):
                raise not_allowed(("GET", "HEAD"))
            return check()
        if (refusal := self._refusal()) is not None:
            raise _must_not_serve(refusal)
        route = parse_path(path)
        if route is None:
            return self._serve_flask(environ, None)
        request = Request(method, route, environ, request_id)
        handler = self._direct.get((route.kind, method))
        if handler is not None:
            return handler(request)
        if (route.kind, method) not in self._wire:
            raise not_allowed(each for kind, each in self._wire if kind is route.kind)
        return self._serve_flask(environ, request)

    def _serve_flask(self, environ: Environ, request: Request | None) -> Answer:
        if request is None and not environ["PATH_INFO"].startswith("/api/"):
            raise unknown_path()
        made: list[tuple[int, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Callable[[bytes], object]:
            made.append((int(status[:3]), headers))
            return lambda _: None

        inner = environ if request is None else {**environ, "PATH_INFO": WIRE_PATH, REQUEST_KEY: request}
        body = self._flask.wsgi_app(inner, start)
        # Everything that it serves is in memory.
        whole = b"".join(body)
        close(body)
        status, headers = made[0]
        return Answer(status, headers, whole)

    def _logged(
        self, environ: Environ, answer: Answer, body: Iterable[bytes], request_id: str, started: float
    ) -> Iterable[bytes]:
        def line(sent: int) -> None:
            logs.access_line(
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"],
                status=answer.status,
                duration_s=time.monotonic() - started,
                bytes_sent=sent,
                request_id=request_id,
                address=environ.get("REMOTE_ADDR", ""),
            )

        if isinstance(body, list):
            line(sum(len(each) for each in body))
            return body
        return _counted(body, line)


def _counted(body: Iterable[bytes], at_end: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    try:
        for block in body:
            sent += len(block)
            yield block
    finally:
        close(body)
        at_end(sent)


def _must_not_serve(refusal: str) -> WireError:
    return error(Code.UNAVAILABLE, refusal, headers=[("Retry-After", _RETRY_AFTER_S)])


def _unavailable(message: str, request_id: str) -> Answer:
    problem = error(Code.UNAVAILABLE, message, {"request_id": request_id}, headers=[("Retry-After", _RETRY_AFTER_S)])
    return error_answer(problem)
