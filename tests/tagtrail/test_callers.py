"""The threads that wait for requests: one where requests are short, and one more for each that takes long."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from tagtrail.server.callers import Callers
from tests.waiting import eventually

WAIT_S = 30.0
# Longer than any test waits: nobody who stays aside goes by himself.
ASIDE_S = 2 * WAIT_S
Request = Callable[[Callers], None]


class Server:
    """Threads that take requests as granian's do; `served` has the thread of each request that was answered."""

    def __init__(self, callers: Callers, threads: int) -> None:
        self.callers = callers
        self.served: list[int] = []
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]
        for each in self._threads:
            each.start()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            self.callers.come()
            request(self.callers)

    def short(self) -> None:
        """Send a request that is answered at once."""

        def request(callers: Callers) -> None:
            self.served.append(threading.get_ident())
            callers.go_or_stay()

        self._requests.put(request)

    def long(self, wait: Callable[[], object]) -> None:
        """Send a request that is answered when `wait` returns."""

        def request(callers: Callers) -> None:
            callers.send_another()
            wait()
            self.served.append(threading.get_ident())
            callers.go()

        self._requests.put(request)

    def end_one(self) -> None:
        """Let the thread that gets this end, as granian ends those that have nothing to do."""
        self._requests.put(None)

    def answered(self, count: int) -> None:
        """Wait until so many requests have been answered."""
        eventually(lambda: len(self.served) >= count, WAIT_S, lambda: f"{len(self.served)} of {count}")

    def stop(self) -> None:
        """End all threads."""
        while any(each.is_alive() for each in self._threads):
            self.end_one()
            self._threads = [each for each in self._threads if each.is_alive()]
            if self._threads:
                self._threads[0].join(0.01)


@contextmanager
def serving(threads: int, aside_s: float = ASIDE_S) -> Iterator[Server]:
    """A server of so many threads, each of which has had a request."""
    callers = Callers(aside_s)
    server = Server(callers, threads)
    try:
        together = threading.Barrier(threads)
        for _ in range(threads):
            server.long(lambda: together.wait(WAIT_S))
        server.answered(threads)
        eventually(lambda: callers.there == threads)
        server.served.clear()
        yield server
    finally:
        server.stop()


def settled(server: Server, aside: int) -> None:
    """Send short requests until so many threads stay aside, and the other one is there."""

    def found() -> bool:
        server.short()
        return (server.callers.there, server.callers.aside) == (1, aside)

    eventually(found)
    server.served.clear()


def test_short_requests_come_to_rest_with_one_thread() -> None:
    with serving(4) as server:
        settled(server, 3)
        for _ in range(50):
            server.short()
        server.answered(50)
        assert len(set(server.served[-40:])) == 1
        assert (server.callers.there, server.callers.aside) == (1, 3)


def test_as_many_requests_may_take_long_as_there_are_threads() -> None:
    """Those that stay aside are called for, one by one."""
    with serving(4) as server:
        settled(server, 3)
        together = threading.Barrier(4)
        for _ in range(4):
            server.long(lambda: together.wait(WAIT_S))
        server.answered(4)
        assert not together.broken
        assert server.callers.aside == 0


def test_a_short_request_is_answered_beside_one_that_takes_long() -> None:
    with serving(2) as server:
        settled(server, 1)
        released = threading.Event()
        server.long(lambda: released.wait(WAIT_S))
        server.short()
        server.answered(1)
        assert not released.is_set()
        released.set()
        server.answered(2)


def test_when_the_one_that_waits_ends_another_takes_its_place() -> None:
    with serving(3) as server:
        settled(server, 2)
        server.end_one()
        eventually(lambda: (server.callers.there, server.callers.aside) == (1, 1))
        server.short()
        server.answered(1)


def test_nobody_stays_aside_for_long_where_nothing_is_asked() -> None:
    """So granian can end its threads."""
    with serving(3, aside_s=0.05) as server:
        for _ in range(10):
            server.short()
        server.answered(10)
        eventually(lambda: (server.callers.there, server.callers.aside) == (3, 0))


@pytest.mark.parametrize("aside_s", [0.0005, ASIDE_S])
def test_no_request_waits_for_a_thread_that_stays_aside(aside_s: float) -> None:
    """Short and long requests at random, of clients who each wait for their answer."""
    with serving(4, aside_s) as server:

        def client(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(150):
                if chance.random() < 0.8:
                    server.short()
                else:
                    answered = threading.Event()
                    server.long(answered.set)
                    assert answered.wait(WAIT_S)

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        server.answered(450)
        eventually(lambda: server.callers.there + server.callers.aside == 4)
        assert server.callers.there >= 1
