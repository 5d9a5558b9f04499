"""Pages of lists: `n`, `last` and the Link to the next one (rule: pages)."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from protocol.errors import Code, error
from protocol.messages import Headers, Request

PAGE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: at most `limit` entries after `last` (exclusive; None = from the beginning)."""

    limit: int
    last: str | None


def parse_page(request: Request, limit_max: int = PAGE_MAX) -> Page:
    """The page that `n` and `last` ask for; n above the limit is clamped.

    Raises 400 PAGINATION_NUMBER_INVALID for an n that is no whole number >= 0.
    """
    text = request.parameter("n")
    limit = limit_max
    if text is not None:
        if not (text.isascii() and text.isdigit()):
            raise error(Code.PAGINATION_NUMBER_INVALID, "n must be a whole number, 0 or more", {"n": text[:80]})
        limit = limit_max if len(text) > 9 else min(int(text), limit_max)
    return Page(limit, parse_last(request))


def parse_last(request: Request) -> str | None:
    """The entry after which the page begins, without characters that no name holds and no database takes."""
    last = request.parameter("last")
    if last is not None and not last.isprintable():
        last = "".join(character for character in last if character.isprintable())
    return last


def next_link(path: str, parameters: Sequence[tuple[str, str]]) -> Headers:
    """The Link header to the next page: a relative address, RFC 5988."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters)
    return [("Link", f'<{path}?{query}>; rel="next"')]
