"""One thread waits for requests while all are short, and one more for each request that takes long."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from tagtrail.server.callers import Callers
from tests.waiting import eventually

WAIT_S = 10.0
# Longer than any test waits, so that no thread that stays aside goes by itself.
ASIDE_S = 1.5 * WAIT_S
Request = Callable[[Callers], None]


class Server:
    """Threads that take requests as granian's do; `served` has the thread of each request that was answered."""

    def __init__(self, callers: Callers, threads: int) -> None:
        self.callers = callers
        self.served: list[int] = []
        self._sent = 0
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

        self._send(request)

    def long(self, wait: Callable[[], object]) -> None:
        """Send a request that is answered when `wait` returns."""

        def request(callers: Callers) -> None:
            callers.send_another()
            wait()
            self.served.append(threading.get_ident())
            callers.go()

        self._send(request)

    def _send(self, request: Request) -> None:
        self._sent += 1
        self._requests.put(request)

    def end_one(self) -> None:
        """Let the thread that gets this end, as granian ends those that have nothing to do."""
        self._requests.put(None)

    def answered(self, count: int) -> None:
        """Wait until so many requests have been answered."""
        eventually(lambda: len(self.served) >= count, WAIT_S, lambda: f"{len(self.served)} of {count}")

    def answered_all(self) -> None:
        """Wait until all requests that were sent have been answered, and forget them."""
        self.answered(self._sent)
        self.served.clear()
        self._sent = 0

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
        server.answered_all()
        eventually(lambda: callers.there == threads, WAIT_S)
        yield server
    finally:
        server.stop()


def settled(server: Server, aside: int) -> None:
    """Send short requests until so many threads stay aside, and the other one is there. None is left unanswered."""

    def found() -> bool:
        server.short()
        server.answered_all()
        return (server.callers.there, server.callers.aside) == (1, aside)

    eventually(found, WAIT_S)


def test_short_requests_come_to_rest_with_one_thread() -> None:
    with serving(4) as server:
        settled(server, 3)
        for _ in range(50):
            server.short()
        server.answered(50)
        assert len(set(server.served[-40:])) == 1
        assert (server.callers.there, server.callers.aside) == (1, 3)


def test_as_many_requests_may_take_long_as_there_are_threads() -> None:
    """The threads that stay aside are called back one by one."""
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
        in_time: list[bool] = []
        server.long(lambda: in_time.append(released.wait(WAIT_S)))
        server.short()
        server.answered(1)
        released.set()
        server.answered(2)
        assert in_time == [True]


def test_another_thread_takes_the_place_of_the_one_that_waits_when_that_ends() -> None:
    with serving(3) as server:
        settled(server, 2)
        server.end_one()
        eventually(lambda: (server.callers.there, server.callers.aside) == (1, 1), WAIT_S)
        server.short()
        server.answered(1)


def test_nobody_stays_aside_for_long_where_nothing_is_asked() -> None:
    """Granian can then end threads that have nothing to do."""
    with serving(3, aside_s=0.05) as server:
        for _ in range(10):
            server.short()
        server.answered(10)
        eventually(lambda: (server.callers.there, server.callers.aside) == (3, 0), WAIT_S)


@pytest.mark.parametrize("aside_s", [0.0005, ASIDE_S])
def test_no_request_waits_for_a_thread_that_stays_aside(aside_s: float) -> None:
    """Several clients send short and long requests at random, and each waits for its answer."""
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
        eventually(lambda: server.callers.there + server.callers.aside == 4, WAIT_S)
        assert server.callers.there >= 1


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def call(thread: ThreadPoolExecutor, *steps: Callable[[], object]) -> None:
    """Let that thread take these steps."""
    thread.submit(lambda: [each() for each in steps]).result(WAIT_S)


class LateLock:
    """A lock for which every wait with a time limit ends without it; at that moment `meanwhile` is called."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self._inner = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; a wait for some time ends without it."""
        if timeout < 0:
            return self._inner.acquire(blocking)
        self._meanwhile()
        return False

    def release(self) -> None:
        """Give the lock back."""
        self._inner.release()

    def locked(self) -> bool:
        """True if somebody has it."""
        return self._inner.locked()


def test_a_thread_that_is_sent_just_as_it_goes_by_itself_is_counted_once(
    other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next time that it stays aside it has to wait as usual."""
    callers = Callers(ASIDE_S)
    call(other, callers.come, callers.go)
    late = LateLock(lambda: call(other, callers.come, callers.send_another))
    with monkeypatch.context() as patch:
        patch.setattr("threading.Lock", lambda: late)
        callers.come()
    callers.go_or_stay()
    assert (callers.there, callers.aside) == (1, 0)
    assert late.locked()
    call(other, callers.go)
    assert callers.there == 2


def test_a_thread_that_cannot_be_noted_as_aside_counts_as_there(
    other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(list[object]):
        def append(self, each: object, /) -> None:
            raise MemoryError

    callers = Callers(ASIDE_S)
    call(other, callers.come, callers.go)
    callers.come()
    monkeypatch.setattr(callers, "_aside", Full())
    callers.go_or_stay()
    assert (callers.there, callers.aside) == (2, 0)


def test_a_thread_that_could_not_be_noted_as_come_is_a_new_one_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> object:
        raise MemoryError

    callers = Callers(ASIDE_S)
    with monkeypatch.context() as patch:
        patch.setattr("threading.Lock", exhausted)
        with pytest.raises(MemoryError):
            callers.come()
    assert callers.there == 0
    callers.come()
    callers.go()
    assert callers.there == 1


def end_within_a_request(callers: Callers) -> None:
    """End a thread within its request, so that the count becomes one too low."""
    thread = threading.Thread(target=callers.come)
    thread.start()
    thread.join()


def test_a_count_that_became_too_low_is_put_right() -> None:
    callers = Callers(aside_s=0.05)
    end_within_a_request(callers)
    assert callers.there == -1
    callers.come()
    callers.go_or_stay()
    assert callers.there == 1


def test_another_thread_is_sent_though_the_count_is_too_low(other: ThreadPoolExecutor) -> None:
    callers = Callers(ASIDE_S)
    callers.come()
    callers.go()
    call(other, callers.come)
    staying = other.submit(callers.go_or_stay)
    eventually(lambda: callers.aside == 1, WAIT_S)
    callers.come()
    end_within_a_request(callers)
    staying.result(WAIT_S)
    assert (callers.there, callers.aside) == (1, 0)
