"""A request from granian is answered at once where that is possible, and takes the usual way otherwise."""

import threading
from typing import Any

import pytest

from tagtrail.server.callers import Callers
from tagtrail.server.entry import Callback, Environ, entry_of
from tagtrail.server.senders import Body, Handing, Headers, Senders
from tests.waiting import eventually

Whole = tuple[int, Headers, bytes]


class Response:
    """A protocol object that notes what it is given."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        self.sent.append((status, headers, body))

    def response_iter(self, status: int, headers: Headers, body: Body) -> None:
        self.sent.append((status, headers, list(body.inner)))


class Application:
    """It has an answer at once, or none, or raises."""

    def __init__(self, made: Whole | Exception | None) -> None:
        self._made = made

    def at_once(self, environ: Environ) -> Whole | None:
        if isinstance(self._made, Exception):
            raise self._made
        return self._made


def by_wsgi(response: Any, environ: Environ, /) -> None:
    """Stands in for granian's own callback, which takes the usual way by WSGI."""
    response.response_bytes(202, [], environ["PATH_INFO"].encode())


def entry(made: Whole | Exception | None, run: Callback = by_wsgi) -> tuple[Callback, Callers]:
    callers = Callers()
    return entry_of(Application(made), run, callers, Senders(1)), callers


@pytest.mark.parametrize(
    ("made", "sent"), [((200, [("A", "b")], b"x"), (200, [("A", "b")], b"x")), (None, (202, [], b"/p"))]
)
def test_the_usual_way_is_taken_only_if_there_is_no_answer_at_once(made: Whole | None, sent: Whole) -> None:
    serve, callers = entry(made)
    response = Response()
    serve(response, {"PATH_INFO": "/p"})
    assert response.sent == [sent]
    assert callers.there == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_a_thread_whose_request_failed_is_still_counted(at_once: bool) -> None:
    def failing(*_: object) -> None:
        raise KeyError("defect")

    serve, callers = entry(KeyError("defect") if at_once else None, failing)
    with pytest.raises(KeyError):
        serve(Response(), {})
    assert (callers.there, callers.aside) == (1, 0)


def test_another_thread_waits_for_requests_while_one_takes_long() -> None:
    """A thread that stayed aside is back before the long request is served."""
    made: Whole | None = (200, [], b"")
    aside: list[int] = []

    class Changing:
        def at_once(self, environ: Environ) -> Whole | None:
            return made

    def slow(response: Any, environ: Environ, /) -> None:
        aside.append(callers.aside)

    callers = Callers()
    serve = entry_of(Changing(), slow, callers, Senders(1))
    serve(Response(), {})
    second = threading.Thread(target=lambda: serve(Response(), {}))
    second.start()
    try:
        eventually(lambda: callers.aside == 1)
    finally:
        made = None
        serve(Response(), {})
        second.join()
    assert aside == [0]
    assert (callers.there, callers.aside) == (1, 0)


def test_blocks_are_handed_over_in_the_usual_way() -> None:
    given: list[object] = []

    def run(response: Any, environ: Environ, /) -> None:
        given.append(response)

    serve, _ = entry(None, run)
    serve(Response(), {})
    assert isinstance(given[0], Handing)
