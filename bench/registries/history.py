"""Checks the history after a storm of pushes: it has every move of the tag, each from where the one before led."""

import http.client
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

# As bench/load/pushes.go names them.
REPOSITORY = "storm/ci-"
TAG = "latest"
_PAGE = 1000
_TIMEOUT_S = 30.0

Entry = Mapping[str, Any]


def gap(address: str, salt: str, moves: int) -> str:
    """Empty if the tag moved exactly `moves` times, from nothing on and without a gap; otherwise what is wrong.

    A history that cannot be read is wrong too: the other rows of a run stand without it.
    """
    try:
        return gap_in(_entries(address, f"{REPOSITORY}{salt}"), moves)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as problem:
        return f"the history cannot be read: {problem}"


def gap_in(entries: Sequence[Entry], moves: int) -> str:
    """The same for a history that was read already, newest first."""
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
