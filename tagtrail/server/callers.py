"""Few of granian's threads wait for requests, so that the interpreter does not go from one to the next each time.

granian starts threads that call the application, as many as requests come at the same time, and each request wakes up
the one that has waited longest. Where a request takes microseconds, waking threads up and giving the interpreter from
one to the next costs more than serving it. So a thread that has answered at once does not go back to granian while
another one is there already: it stays *aside*, within its call, until somebody else is kept by a request that takes
longer.

Only a thread whose request had no body may stay, because granian frees a body when its call ends.
"""

import _thread
import threading
from collections.abc import Callable

# Then a thread goes back to granian, which ends those that get no request for IDLE_S.
ASIDE_S = 3.0
IDLE_S = 5


class _Until:
    """Held by a thread of granian from its first request on, and freed by the interpreter when the thread ends."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def __del__(self) -> None:
        self._ended()


class Callers:
    """The threads of one worker in which granian calls the application.

    Those *there* are with granian: each waits for a request, or is about to, or brings one that it has just got. While
    any thread is aside, another one is there, or answers at once and will be.
    """

    def __init__(self, aside_s: float = ASIDE_S) -> None:
        self._aside_s = aside_s
        self._lock = threading.Lock()
        self._there = 0
        self._aside: list[_thread.LockType] = []
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
        if hasattr(self._each, "until"):
            with self._lock:
                self._there -= 1
        else:
            self._each.until = _Until(self._end)

    def go(self) -> None:
        """Count a thread that goes back to granian now."""
        with self._lock:
            self._there += 1

    def go_or_stay(self) -> None:
        """Go back to granian, but stay aside before that for as long as another thread is there."""
        with self._lock:
            if not self._there:
                self._there = 1
                return
            wanted = _thread.allocate_lock()
            wanted.acquire()
            self._aside.append(wanted)
        if wanted.acquire(timeout=self._aside_s):
            return
        with self._lock:
            # Else somebody has just called for this thread, and has counted it.
            if wanted in self._aside:
                self._aside.remove(wanted)
                self._there += 1

    def send_another(self) -> None:
        """Called by a thread whose request may take longer: somebody else has to wait for the next one."""
        with self._lock:
            self._keep_one_there()

    def _end(self) -> None:
        with self._lock:
            self._there -= 1
            self._keep_one_there()

    def _keep_one_there(self) -> None:
        if not self._there and self._aside:
            self._there = 1
            self._aside.pop().release()
