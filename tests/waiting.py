"""Waiting for something to become true, in tests that watch other threads and processes."""

import time
from collections.abc import Callable
from typing import TypeVar

PAUSE_S = 0.02
T = TypeVar("T")


def eventually(look: Callable[[], T], timeout_s: float = 30.0, what: Callable[[], object] | str = "it") -> T:
    """Wait until `look` answers something true, and give that. Fails with `what`, called if it can be."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(PAUSE_S)
    return found
