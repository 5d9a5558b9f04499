"""Threads for downloads, so that an answer of many blocks holds none of the threads that serve requests.

granian writes such an answer from the thread that served its request, which then waits for the client. But its protocol
object can be used from any thread. So granian's callback gets a form of that object (tagtrail.server.entry) which hands
the writing over to a thread of its own.
"""

import _thread
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

# The share of the threads for requests that downloads may hold. The first downloads need no thread of their own.
_SHARE = 8

Headers = list[tuple[str, str]]


class Body(Protocol):
    """A body of blocks as granian wraps it."""

    @property
    def inner(self) -> Iterable[bytes]:
        """The body as the application gave it."""


class Response(Protocol):
    """The part of granian's protocol object that is used."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer in one piece, without waiting for the client."""

    def response_iter(self, status: int, headers: Headers, body: Body) -> None:
        """Answer in blocks; returns when the last one is on its way, or the client has gone, and closes the body."""


class Senders:
    """Runs the writers of answers: a few in the calling thread, the others in threads of their own."""

    def __init__(self, own_max: int) -> None:
        self._places = deque([None] * own_max)

    @classmethod
    def beside(cls, threads: int) -> "Senders":
        """For a worker with so many threads for requests."""
        return cls(max(1, threads // _SHARE))

    def run(self, write: Callable[[], None]) -> None:
        """Run it here or in a new thread. If no thread can be started, it runs here."""
        try:
            self._places.pop()
        except IndexError:
            self._start(write)
            return
        try:
            write()
        finally:
            self._places.append(None)

    @staticmethod
    def _start(write: Callable[[], None]) -> None:
        try:
            # Not a `threading.Thread`, whose start waits until it runs, because hundreds may be started at a time.
            _thread.start_new_thread(write, ())
        except RuntimeError:
            write()


class Handing:
    """A protocol object whose answers in blocks are handed over."""

    __slots__ = ("_response", "_senders", "response_bytes")

    def __init__(self, response: Response, senders: Senders) -> None:
        self._response = response
        self._senders = senders
        self.response_bytes = response.response_bytes

    def response_iter(self, status: int, headers: Headers, body: Body) -> None:
        """Answer in blocks, from another thread unless the body says that it `stays` with this one."""
        if getattr(body.inner, "stays", False):
            self._response.response_iter(status, headers, body)
            return
        self._senders.run(partial(self._response.response_iter, status, headers, body))
