"""Errors, pages and conditions."""

import json
from typing import Any

import pytest

from protocol.conditions import etags, not_modified
from protocol.errors import STATUS_OF_CODE, Code, Problem, WireError, error
from protocol.messages import Request, error_answer
from protocol.paging import next_link, parse_page
from protocol.routes import Kind, Route


def request(query: str = "", **environ: Any) -> Request:
    """A GET of a tag list with this query."""
    return Request("GET", Route(Kind.TAGS, "a/b"), {"QUERY_STRING": query, **environ}, "id")


def test_every_code_has_a_status() -> None:
    """All are statuses of client errors, except for two."""
    assert set(STATUS_OF_CODE) == set(Code)
    assert {code for code, status in STATUS_OF_CODE.items() if status >= 500} == {Code.UNKNOWN, Code.UNAVAILABLE}


def test_the_status_comes_from_the_first_problem() -> None:
    """The body lists all of them."""
    answer = error_answer(WireError(Problem(Code.MANIFEST_BLOB_UNKNOWN, "a", "d1"), Problem(Code.DENIED, "b")))
    assert answer.status == 404
    assert isinstance(answer.body, bytes)
    assert [each["detail"] for each in json.loads(answer.body)["errors"]] == ["d1", None]
    assert ("Content-Type", "application/json") in answer.headers


def test_an_error_has_the_status_that_was_given_for_it() -> None:
    """416 for BLOB_UPLOAD_INVALID, 412 for DENIED."""
    assert error(Code.DENIED, "no", status=412).status == 412


@pytest.mark.parametrize(
    ("query", "limit", "last"),
    [
        ("", 100, None),
        ("n=0", 0, None),
        ("n=7&last=a", 7, "a"),
        ("last=", 100, ""),
        ("n=5000", 100, None),
        ("n=99999999999999999999", 100, None),
        ("last=%00a", 100, "a"),
        ("n=1&n=2", 1, None),
    ],
)
def test_a_page_begins_after_last_and_has_n_entries_at_most(query: str, limit: int, last: str | None) -> None:
    """A larger n is clamped, and `last` alone gives a page too."""
    page = parse_page(request(query), 100)
    assert (page.limit, page.last) == (limit, last)


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "", "%20", "٣"])
def test_a_wrong_n_is_refused(n: str) -> None:
    """PAGINATION_NUMBER_INVALID."""
    with pytest.raises(WireError) as caught:
        parse_page(request(f"n={n}"), 100)
    assert caught.value.problems[0].code is Code.PAGINATION_NUMBER_INVALID
    assert caught.value.status == 400


def test_the_link_is_relative_and_encoded() -> None:
    """Clients accept no other host there."""
    links = next_link("/v2/a/tags/list", [("last", "a&b c"), ("n", "2")])
    assert links == [("Link", '</v2/a/tags/list?last=a%26b%20c&n=2>; rel="next"')]


@pytest.mark.parametrize(
    ("header", "modified"),
    [('"d"', False), ("d", False), ('W/"d"', False), ('"x", "d"', False), ("*", False), ('"x"', True), (None, True)],
)
def test_if_none_match_is_answered_304_for_the_entity_that_the_client_has(header: str | None, modified: bool) -> None:
    """Quoted or bare."""
    assert not_modified(header, "d") is not modified


def test_a_missing_or_empty_header_names_no_entity() -> None:
    """An absent header names no tag."""
    assert etags(None) == frozenset()


def test_too_many_parameters_are_refused() -> None:
    """They are a bad request and never a 500."""
    with pytest.raises(WireError) as caught:
        request("&".join(f"a{n}=1" for n in range(2000))).parameter("a")
    assert caught.value.status == 400


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"00-{TRACE}-{SPAN}-00", TRACE),
        (f"cc-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACE),
        (None, None),
        ("", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"cc-{TRACE}-{SPAN}-01.more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f" 00-{TRACE}-{SPAN}-01", None),
    ],
)
def test_the_trace_of_a_request_is_that_of_a_valid_traceparent(traceparent: str | None, trace: str | None) -> None:
    """The cases are those of W3C Trace Context, sections 3.2 and 4.3: a malformed header counts as missing."""
    sent = {} if traceparent is None else {"HTTP_TRACEPARENT": traceparent}
    assert request(**sent).trace_id == trace
