"""Waits until something is true, for tests that watch other threads and processes."""

import time
from collections.abc import Callable
from typing import TypeVar

PAUSE_S = 0.02
T = TypeVar("T")


def eventually(look: Callable[[], T], timeout_s: float = 30.0, what: Callable[[], object] | str = "it") -> T:
    """Wait until `look` answers something true, and answer that.

    Fails after `timeout_s` seconds with `what`, a text or a call that gives one.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what() if callable(what) else what}")
        time.sleep(PAUSE_S)
    return found
