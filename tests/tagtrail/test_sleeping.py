"""The supervisor sleeps until something happens that wakes it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest

from tagtrail.config import resolve
from tagtrail.server import supervisor
from tagtrail.server.children import BACKOFF_S, Child
from tagtrail.server.supervisor import Supervisor

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
FOR_EVER_S = 180.0
WAIT_MAX_S = 60.0


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor without children that would sleep for ever."""
    monkeypatch.setattr(supervisor, "LOOK_S", FOR_EVER_S)
    before = {each: signal.getsignal(each) for each in HANDLED}
    made = Supervisor(resolve({}, {}).settings, Mock())
    made._take_signals()
    try:
        yield made
    finally:
        signal.set_wakeup_fd(-1)
        for each, handler in before.items():
            signal.signal(each, handler)


def slept_s(sleeper: Supervisor) -> float:
    """Let the supervisor sleep; answers the seconds until it woke."""
    began = time.monotonic()
    sleeper._sleep()
    return time.monotonic() - began


def a_process_ends() -> None:
    """End a child process."""
    subprocess.Popen([sys.executable, "-c", ""]).wait()


def it_is_told_to_end() -> None:
    """Send the signal that ends the supervisor."""
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("happens", [a_process_ends, it_is_told_to_end])
def test_it_is_woken_by_what_happens_while_it_sleeps_or_before(
    sleeper: Supervisor, happens: Callable[[], None]
) -> None:
    happening = threading.Timer(0.3, happens)
    happening.start()
    try:
        assert slept_s(sleeper) < WAIT_MAX_S
    finally:
        happening.join()
    sleeper._waker.clear()
    happens()
    assert slept_s(sleeper) < WAIT_MAX_S


def test_it_wakes_in_time_to_start_a_child_again(sleeper: Supervisor) -> None:
    child = Child("one", lambda: subprocess.Popen(["true"], start_new_session=True), signal.SIGTERM, Mock())
    sleeper._children.append(child)
    process = child.start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not child.check()
    sleeper._waker.clear()
    assert 0 < child.due_s() <= BACKOFF_S
    assert slept_s(sleeper) < WAIT_MAX_S
    assert child.due_s() == 0
    assert child.check()
    assert child.due_s() == float("inf")
    child.kill()
