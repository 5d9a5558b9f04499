"""Clients that race: connections that stay open, and calls that begin at one moment."""

import http.client
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from domain.media_types import OCI_MANIFEST
from tests.api import Registry, sha256
from tests.clients.wire import Answer

ANSWER_TIMEOUT_S = 60.0
T = TypeVar("T")


class Api(Protocol):
    """One way into the registry."""

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request, answer whatever comes back."""


class Connection:
    """A connection that stays open, so it stays with one worker of a server."""

    def __init__(self, host: str) -> None:
        self._http = http.client.HTTPConnection(host, timeout=ANSWER_TIMEOUT_S)
        # Most connections are used for one request and then forgotten, which must close them. A finalizer closes the
        # socket before it is collected, even if connection and socket are garbage that refers to itself.
        weakref.finalize(self, self._http.close)

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request, answer whatever comes back."""
        if self._http.sock is None:
            self._connect()
        self._http.request(method, path, body=body or None, headers=dict(headers or {}))
        response = self._http.getresponse()
        answered = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, answered)

    def _connect(self) -> None:
        self._http.connect()


class InProcess:
    """A registry in this process, asked without a server."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request, answer whatever comes back."""
        got = self._registry.open(path, method=method, data=body, headers=dict(headers or {}))
        return Answer(got.status_code, {name.lower(): value for name, value in got.headers.items()}, got.data)


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run all calls in threads that begin at one moment; gives their answers in order."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [each.result() for each in [pool.submit(run, call) for call in calls]]


def put_blob(api: Api, repository: str, data: bytes) -> int:
    """Upload a blob by a session, a chunk and a closing PUT; answers the last status."""
    started = api.ask("POST", f"/v2/{repository}/blobs/uploads/")
    if started.status != 202:
        return started.status
    location = started.headers["location"]
    sent = api.ask("PATCH", location, data)
    if sent.status != 202:
        return sent.status
    return api.ask("PUT", f"{location}?digest={sha256(data)}").status


def put_whole_blob(api: Api, repository: str, data: bytes) -> int:
    """Upload a blob by one request; its status."""
    return api.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data).status


def put_manifest(
    api: Api, repository: str, reference: str, body: bytes, media_type: str = OCI_MANIFEST, **headers: str
) -> Answer:
    """PUT a manifest."""
    path = f"/v2/{repository}/manifests/{reference}"
    return api.ask("PUT", path, body, {"Content-Type": media_type, **headers})
