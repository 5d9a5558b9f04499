"""A request is answered at once only if that needs nothing but memory; any other takes the usual way."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from blobstore.pace import WHOLE_BYTES_MAX
from eventstore.types import StoreUnavailable
from protocol.errors import Code, error
from protocol.messages import Answer
from query_api.cache import AnswerCache, Ticket
from query_api.handlers import ALWAYS
from tagtrail.at_once import AtOnce
from tagtrail.cross_origin import CrossOrigin
from tagtrail.every_answer import EveryAnswer
from tagtrail.hosts import Hosts

PATH = "/v2/u/app/manifests/v1"
KEPT = Answer(200, [("Content-Length", "4")], b"kept")


class Voucher:
    """Vouches for everything, or for nothing."""

    def __init__(self, *, at_once: bool = True, holding: bool = True) -> None:
        self.at_once = at_once
        self._holding = holding

    def ticket(self, key: str) -> Ticket | None:
        return (1, 1)

    def holds(self, key: str, ticket: Ticket) -> bool:
        return self._holding


class FailingVoucher(Voucher):
    """Fails when it is asked."""

    def __init__(self, problem: Exception) -> None:
        super().__init__()
        self._problem = problem

    def holds(self, key: str, ticket: Ticket) -> bool:
        raise self._problem


class Served:
    """The thing at PATH; a call of `answer` would be a fault, because it may wait."""

    def __init__(self, answer: Answer | Exception | None) -> None:
        self._answer = answer

    def answer(self, environ: Any) -> Answer:
        raise AssertionError("this may wait")

    def answer_at_once(self, environ: Any) -> Answer | None:
        if "HTTP_RANGE" in environ:
            raise error(Code.RANGE_INVALID, "no such part")
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def asked(
    path: str = PATH,
    method: str = "GET",
    *,
    answer: Answer | Exception | None = KEPT,
    voucher: Voucher | None = None,
    refusal: Callable[[], str | None] = lambda: None,
    environ: Mapping[str, str] | None = None,
) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """The status, headers and body of the answer at once to a request; None if it takes the usual way."""
    cache = AnswerCache(voucher or Voucher(), 1 << 20)
    opening = cache.open("u/app")
    assert opening is not None
    cache.keep(PATH, opening, Served(answer), 4)
    at_once = AtOnce(cache, ALWAYS, EveryAnswer(CrossOrigin(frozenset())), Hosts(frozenset(["a.example"])), refusal)
    usual = {"SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "a.example"}
    return at_once.answer({"REQUEST_METHOD": method, "PATH_INFO": path, **usual, **(environ or {})})


def test_the_answer_has_the_headers_of_every_answer() -> None:
    found = asked(environ={"HTTP_X_REQUEST_ID": "mine"})
    assert found == (
        200,
        [
            ("Content-Length", "4"),
            ("Docker-Distribution-API-Version", "registry/2.0"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Request-Id", "mine"),
        ],
        b"kept",
    )


@pytest.mark.parametrize(("method", "body"), [("GET", b"{}"), ("HEAD", b"")])
def test_the_base_is_always_there(method: str, body: bytes) -> None:
    found = asked("/v2/", method)
    assert found is not None
    assert (found[0], found[1][:2], found[2]) == (
        200,
        [("Content-Type", "application/json"), ("Content-Length", "2")],
        body,
    )


@pytest.mark.parametrize("path", [PATH, "/v2/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reads_are_answered(path: str, method: str) -> None:
    assert asked(path, method) is None


@pytest.mark.parametrize("path", [PATH, "/v2/"])
@pytest.mark.parametrize("environ", [{"CONTENT_LENGTH": "1"}, {"HTTP_TRANSFER_ENCODING": "chunked"}], ids=str)
def test_a_request_with_a_body_is_not_answered(path: str, environ: dict[str, str]) -> None:
    """Its thread must not be kept from granian, which would wait for the body's end."""
    assert asked(path, environ=environ) is None


@pytest.mark.parametrize("path", [PATH, "/v2/"])
@pytest.mark.parametrize("host", ["b.example", "", "?"])
def test_another_host_is_not_answered(path: str, host: str) -> None:
    assert asked(path, environ={"HTTP_HOST": host}) is None


def test_an_answer_that_is_not_kept_is_not_given_at_once() -> None:
    assert asked("/v2/u/app/manifests/v2") is None


@pytest.mark.parametrize("voucher", [Voucher(at_once=False), Voucher(holding=False)])
def test_an_answer_that_nobody_vouches_for_without_waiting_is_not_given_at_once(voucher: Voucher) -> None:
    assert asked(voucher=voucher) is None


def test_a_process_that_must_not_serve_does_not_answer_the_base() -> None:
    assert asked("/v2/", refusal=lambda: "too old") is None


@pytest.mark.parametrize(
    "answer",
    [None, Answer(206, [], [b"x"]), Answer(200, [], bytes(WHOLE_BYTES_MAX + 1))],
    ids=["waits", "parts", "long"],
)
def test_an_answer_that_does_not_go_out_in_one_piece_is_left_alone(answer: Answer | None) -> None:
    assert asked(answer=answer) is None


def test_an_error_is_left_to_the_application() -> None:
    assert asked(environ={"HTTP_RANGE": "bytes=9-"}) is None


PROBLEMS = [MemoryError(), KeyError("defect"), StoreUnavailable("gone")]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_any_fault_is_left_to_the_application(problem: Exception) -> None:
    """The application then answers with an error that has a body, the request's id and a line in the log."""

    def refusal() -> str | None:
        raise problem

    assert asked(voucher=FailingVoucher(problem)) is None
    assert asked(answer=problem) is None
    assert asked("/v2/", refusal=refusal) is None
