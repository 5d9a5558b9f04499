"""Checks our history after many clients pushed to one tag: it has every move, each from where the last one led."""

import http.client
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

# The names that bench/load/pushes.go pushes to.
REPOSITORY = "storm/ci-"
TAG = "latest"
_PAGE = 1000
_TIMEOUT_S = 30.0

Entry = Mapping[str, Any]


def gap(address: str, salt: str, moves: int) -> str:
    """A sentence about what is wrong; empty if the tag moved exactly `moves` times, from nothing on and without a gap.

    A history that cannot be read is such a sentence too, and no exception: the other rows of the run still count.
    """
    try:
        return gap_in(_entries(address, f"{REPOSITORY}{salt}"), moves)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as problem:
        return f"the history cannot be read: {problem}"


def gap_in(entries: Sequence[Entry], moves: int) -> str:
    """The fault of a history that was read already, as `gap` tells it; `entries` are newest first."""
    if len(entries) != moves:
        return f"{moves} pushes moved {TAG}, its history has {len(entries)} entries"
    before = None
    for each in reversed(entries):
        if each["from"] != before:
            return f"{TAG} moved from {each['from']} at {each['position']}, but led to {before} before"
        before = each["to"]
    return ""


def _entries(address: str, repository: str) -> list[Entry]:
    """The whole history of the tag, newest first."""
    found: list[Entry] = []
    following: str | None = f"/api/v1/repositories/{repository}/history?tag={TAG}&n={_PAGE}"
    while following:
        with urllib.request.urlopen(f"http://{address}{following}", timeout=_TIMEOUT_S) as answer:
            page = json.load(answer)
        found += page["entries"]
        following = page["next"]
    return found
