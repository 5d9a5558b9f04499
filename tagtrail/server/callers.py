"""Few of granian's threads wait for requests, so that the interpreter does not go from one to the next each time.

granian starts threads that call the application, as many as requests come at the same time, and each request wakes up
the one that has waited longest. Where a request takes microseconds, waking threads up and giving the interpreter from
one to the next costs more than serving it. So a thread that has answered at once does not go back to granian while
another one is there already: it stays *aside*, within its call, until a longer request keeps the other one busy.

Only a thread whose request had no body may stay, because granian frees a body when its call ends.
"""

import threading
from collections.abc import Callable

# Then a thread goes back to granian, which ends those that get no request for IDLE_S.
ASIDE_S = 3.0
IDLE_S = 5


class _Caller:
    """Held by a thread of granian from its first request on, and freed by the interpreter when the thread ends.

    `wanted` is locked; the thread waits for it while it stays aside. `ended` is set once the thread holds this.
    """

    ended: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.wanted = threading.Lock()
        self.wanted.acquire()

    def __del__(self) -> None:
        if self.ended is not None:
            self.ended()


class Callers:
    """The threads of one worker in which granian calls the application.

    Threads that are *there* are with granian: each waits for a request, or is about to, or brings one that it has just
    got. While any thread is aside, another one is there, or answers at once and will be. A count that is wrong for good
    would break this, so nothing here may fail between a change of the count and what it stands for.
    """

    def __init__(self, aside_s: float = ASIDE_S) -> None:
        self._aside_s = aside_s
        self._lock = threading.Lock()
        self._there = 0
        self._aside: list[threading.Lock] = []
        self._each = threading.local()

    @property
    def there(self) -> int:
        """The number of threads that are with granian, of those that have brought a request."""
        return self._there

    @property
    def aside(self) -> int:
        """The number of threads that stay aside."""
        return len(self._aside)

    def come(self) -> None:
        """Count a thread that brings a request. Each call of this is followed by one of `go` or `go_or_stay`."""
        if hasattr(self._each, "caller"):
            with self._lock:
                self._there -= 1
        else:
            caller = _Caller()
            self._each.caller = caller
            caller.ended = self._end

    def go(self) -> None:
        """Count a thread that goes back to granian now."""
        with self._lock:
            self._there += 1

    def go_or_stay(self) -> None:
        """Go back to granian, but stay aside before that for as long as another thread is there."""
        wanted: threading.Lock = self._each.caller.wanted
        with self._lock:
            if self._there <= 0:
                self._there = 1
                return
            try:
                self._aside.append(wanted)
            except MemoryError:
                # Nobody would find it aside.
                self._there += 1
                return
        if wanted.acquire(timeout=self._aside_s):
            return
        with self._lock:
            if wanted in self._aside:
                self._aside.remove(wanted)
                self._there += 1
            else:
                # Another thread has just sent this one, and has counted it.
                wanted.acquire()

    def send_another(self) -> None:
        """Called by a thread whose request may take longer: somebody else has to wait for the next one."""
        with self._lock:
            self._keep_one_there()

    def _end(self) -> None:
        with self._lock:
            self._there -= 1
            self._keep_one_there()

    def _keep_one_there(self) -> None:
        if self._there <= 0 and self._aside:
            self._there = 1
            self._aside.pop().release()
