"""The way of a request from granian into the application.

What needs nothing but memory is answered at once, by a short way past WSGI. Everything else goes the usual way.
"""

import threading
from typing import Any, Protocol

from granian.server import mp

from tagtrail.server.callers import Callers
from tagtrail.server.senders import Handing, Headers, Response, Senders

# The module in which granian makes its callback of an application. It has no public name.
_WRAPPER = "_wsgi_call_wrap"
# The stack of all threads that Python starts in a worker. They do little more than wait.
_STACK_BYTES = 1024 * 1024

Environ = dict[str, Any]


class Application(Protocol):
    """The part of the application that is used here, besides that granian calls it."""

    def at_once(self, environ: Environ) -> tuple[int, Headers, bytes] | None:
        """The answer if it needs nothing but memory and the request has no body; None if it may have to wait."""


class Callback(Protocol):
    """The callback that granian is given: it has the application answer by the protocol object."""

    def __call__(self, response: Response, environ: Environ, /) -> object:
        """Serve one request."""


def take_over(threads: int) -> None:
    """Let the worker that is about to start in this process, with so many threads for requests, serve in this way."""
    wrap = getattr(mp, _WRAPPER)
    senders = Senders.beside(threads)

    def wrapped(application: Application, *given: Any) -> Callback:
        return entry_of(application, wrap(application, *given), Callers(), senders)

    setattr(mp, _WRAPPER, wrapped)
    threading.stack_size(_STACK_BYTES)


def entry_of(application: Application, run: Callback, callers: Callers, senders: Senders) -> Callback:
    """The callback in the place of `run`, which is granian's own."""
    at_once = application.at_once

    def entry(response: Response, environ: Environ, /) -> None:
        callers.come()
        stays = False
        try:
            made = at_once(environ)
            if made is None:
                callers.send_another()
                run(Handing(response, senders), environ)
            else:
                response.response_bytes(*made)
                stays = True
        finally:
            if stays:
                callers.go_or_stay()
            else:
                callers.go()

    return entry
