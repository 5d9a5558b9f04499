"""Turns go to those who wait in the order in which they came, and none is lost."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from eventstore.appender.turns import Turns
from tests.waiting import eventually

DEADLINE_S = 60.0


def taken_in_order(
    turns: Turns, pool: ThreadPoolExecutor, many: int, done: Callable[[int], None]
) -> list[Future[None]]:
    """So many threads that come one after another; each says its number when it has its turn, and ends it."""

    def take(number: int) -> None:
        assert turns.take(DEADLINE_S)
        done(number)
        turns.give_back()

    waiting = []
    for number in range(many):
        waiting.append(pool.submit(take, number))
        eventually(lambda: len(turns._waiting) == len(waiting))
    return waiting


def test_turns_are_taken_in_the_order_in_which_threads_came() -> None:
    """Also where a newcomer asks while one is given back."""
    turns, order = Turns(2), list[int]()
    with ThreadPoolExecutor(8) as pool:
        assert turns.take(0)
        assert turns.take(0)
        waiting = taken_in_order(turns, pool, 8, order.append)
        turns.give_back()
        for each in waiting:
            each.result(DEADLINE_S)
        turns.give_back()
    assert order == list(range(8))
    assert turns.take(0)
    assert turns.take(0)
    assert not turns.take(0)


def test_a_newcomer_waits_behind_those_who_wait() -> None:
    """The turn that is given back is theirs at once."""
    turns, going_on = Turns(1), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        assert turns.take(0)
        (waiting,) = taken_in_order(turns, pool, 1, lambda _: assert_set(going_on))
        turns.give_back()
        assert not turns.take(0)
        going_on.set()
        waiting.result(DEADLINE_S)
    assert turns.take(0)


def assert_set(event: threading.Event) -> None:
    """Wait for it."""
    assert event.wait(DEADLINE_S)


def test_who_gave_up_waiting_gets_no_turn() -> None:
    """A time that is over already is no error either."""
    turns = Turns(1)
    assert turns.take(0)
    assert not turns.take(-1)
    assert not turns.take(0.01)
    turns.give_back()
    assert turns.take(0)


def test_a_turn_that_comes_at_the_end_of_the_time_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given when the wait is over, and before the one who waited has left."""
    turns = Turns(1)
    assert turns.take(0)

    class Late:
        """A lock whose wait ends without it; it is released just after that."""

        def acquire(self, timeout: float | None = None) -> bool:
            if timeout is not None:
                turns.give_back()
            return timeout is None

        def release(self) -> None:
            pass

    monkeypatch.setattr("eventstore.appender.turns.threading.Lock", Late)
    assert turns.take(1)
    assert not turns._free
    turns.give_back()
    assert turns.take(0)
