"""Marks of keys are asked for many requests at once, and no request gets one from before it began."""

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from eventstore.store import Store
from eventstore.types import StoreUnavailable
from eventstore.validating import Mark, Validator
from tests.eventstore.making import command, event
from tests.postgres import Database
from tests.waiting import eventually


class Log:
    """A log whose answers are let go one by one."""

    def __init__(self) -> None:
        self.position = 0
        self.asked: list[set[str]] = []
        self._answers = threading.Semaphore(0)

    def ask(self, keys: Collection[str]) -> Mapping[str, Mark]:
        """The state when it was asked, told when it may be."""
        found = dict.fromkeys(keys, (1, self.position))
        self.asked.append(set(keys))
        self._answers.acquire()
        return found

    def answer(self) -> None:
        """Let one answer go."""
        self._answers.release()


def test_a_question_that_was_sent_is_joined_by_nobody() -> None:
    """Its answer may be older than what the second one's client was acknowledged; all who wait share the next one."""
    log = Log()
    validator = Validator(log.ask, patience_s=30.0)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(validator.ticket, "a")
        eventually(lambda: log.asked == [{"a"}])
        log.position = 7
        later = [pool.submit(validator.ticket, key) for key in ("a", "b", "a", "c")]
        eventually(lambda: validator._next.keys == {"a", "b", "c"})
        log.answer()
        assert first.result(30) == (1, 0)
        eventually(lambda: len(log.asked) == 2)
        log.answer()
        assert [each.result(30) for each in later] == [(1, 7)] * 4
    assert log.asked == [{"a"}, {"a", "b", "c"}]


def test_a_question_without_an_answer_holds_up_no_other() -> None:
    """Otherwise each question would wait for its own time limit and for that of the one before."""
    answered = threading.Event()

    def ask(keys: Collection[str]) -> Mapping[str, Mark]:
        if "a" in keys:
            assert answered.wait(30)
        return dict.fromkeys(keys, (1, 1))

    validator = Validator(ask)
    with ThreadPoolExecutor(5) as pool:
        stuck = pool.submit(validator.ticket, "a")
        eventually(validator._sending.locked)
        assert [pool.submit(validator.ticket, key).result(30) for key in ("b", "c")] == [(1, 1)] * 2
        answered.set()
        assert stuck.result(30) == (1, 1)


def test_all_who_wait_are_told_that_there_is_no_answer() -> None:
    """The next question asks again."""
    fails = True

    def ask(keys: Collection[str]) -> Mapping[str, Mark]:
        if fails:
            raise StoreUnavailable("away")
        return dict.fromkeys(keys, (1, 1))

    validator = Validator(ask)
    with ThreadPoolExecutor(5) as pool:
        for each in [pool.submit(validator.ticket, "a") for _ in range(5)]:
            with pytest.raises(StoreUnavailable, match="away"):
                each.result(30)
    fails = False
    assert validator.ticket("a") == (1, 1)


def test_a_mark_moves_with_its_key_and_with_the_epoch(database: Database) -> None:
    """It does not move with another key."""
    with closing(Store(database.app_url)) as store:
        validator = Validator(store.marks)
        nothing = validator.ticket("a")
        store.append(command(event("s", key="a")))
        assert not validator.holds("a", nothing)
        one = validator.ticket("a")
        store.append(command(event("t", key="b")))
        assert validator.holds("a", one)
        assert store.marks(["a", "b", "c"]) == {"a": one, "b": (one[0], 2), "c": (one[0], 0)}
        stream = validator.ticket("t")
        store.append(command(event("u", key="b")))
        assert validator.holds("t", stream), "a stream is asked for like a key"
        store.append(command(event("t", key="b")))
        assert not validator.holds("t", stream)
