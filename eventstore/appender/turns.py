"""Turns that threads take in the order in which they came."""

import threading
from collections import deque


class Turns:
    """At most `most` threads have a turn at a time.

    A semaphore would not do: a turn that is given back is free for a moment, and a thread that comes just then takes it
    before all that wait.
    """

    def __init__(self, most: int) -> None:
        self._changing = threading.Lock()
        # Nobody waits while there is a free one.
        self._free = most
        self._waiting: deque[threading.Lock] = deque()

    def take(self, timeout_s: float) -> bool:
        """Wait for a turn; False if none came in time."""
        with self._changing:
            if self._free:
                self._free -= 1
                return True
            given = threading.Lock()
            given.acquire()
            self._waiting.append(given)
        if given.acquire(timeout=max(0.0, timeout_s)):
            return True
        with self._changing:
            if given not in self._waiting:
                # It was given this turn after all, and would lose it.
                return True
            self._waiting.remove(given)
        return False

    def give_back(self) -> None:
        """End a turn; it is that of the first who waits."""
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
