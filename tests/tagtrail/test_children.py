"""The supervisor starts a child that ends again and again after longer pauses, but soon."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest

from tagtrail.server import children
from tagtrail.server.children import BACKOFF_MAX_S, BACKOFF_S, STABLE_S, Child

READY_AGAIN_MAX_S = 5.0
START_S = 1.5


class Clock:
    """A clock that is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@contextmanager
def ending_at_once(patch: pytest.MonkeyPatch) -> Iterator[tuple[Child, Clock]]:
    """A child whose process has ended whenever it is looked at."""

    def start() -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(["true"], start_new_session=True)
        # The process has ended and nobody has asked for its status yet, as when the supervisor finds it.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return process

    clock = Clock()
    patch.setattr(children, "time", clock)
    child = Child("one", start, signal.SIGTERM, Mock())
    child.start()
    try:
        yield child, clock
    finally:
        child.kill()


def pause_of(child: Child, clock: Clock) -> float:
    """The seconds until a child that has ended is started again."""
    assert not child.check()
    ended = clock.now
    while not child.check():
        clock.now += BACKOFF_S
    return clock.now - ended


def test_a_child_that_ends_again_and_again_is_started_later_each_time_but_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that fails at its start costs little, and one that is killed is ready again in the promised time."""
    with ending_at_once(monkeypatch) as (child, clock):
        pauses = [pause_of(child, clock) for _ in range(8)]
        assert pauses[0] == BACKOFF_S
        assert pauses == sorted(pauses)
        assert pauses[-1] == BACKOFF_MAX_S < READY_AGAIN_MAX_S - START_S
        clock.now += STABLE_S + 1
        assert pause_of(child, clock) == BACKOFF_S
