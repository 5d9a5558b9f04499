"""One question to the log tells many requests at once which of their kept answers still hold.

It serves servers that share their database with others, and so have no change board
(rule: join only unsent questions).
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from eventstore.types import StoreError, StoreUnavailable

# After this time a question no longer holds up the next one, because the database may be away.
PATIENCE_S = 0.05

Mark = tuple[int, int]
"""The log's epoch and the position of a key's last event in it."""


@dataclass(slots=True)
class _Round:
    """One question for all requests that wait for it."""

    keys: set[str] = field(default_factory=set)
    led: bool = False
    marks: Mapping[str, Mark] = field(default_factory=dict)
    problem: StoreError | None = None
    over: threading.Event = field(default_factory=threading.Event)


class Validator:
    """Marks of keys, for any number of threads; `ask` brings those of many keys by one statement.

    A request joins only a question that was not sent yet: one under way may have been answered before the last write
    that was acknowledged to the request's client.
    """

    at_once = False

    def __init__(self, ask: Callable[[Collection[str]], Mapping[str, Mark]], *, patience_s: float = PATIENCE_S) -> None:
        self._ask = ask
        self._patience_s = patience_s
        self._joining = threading.Lock()
        self._sending = threading.Lock()
        self._next = _Round()

    def ticket(self, key: str) -> Mark:
        """The mark of the key, of this moment or later. Raises StoreUnavailable."""
        with self._joining:
            joined = self._next
            joined.keys.add(key)
            leads, joined.led = not joined.led, True
        if leads:
            self._lead(joined)
        joined.over.wait()
        if joined.problem is not None:
            raise StoreUnavailable(f"kept answers could not be validated: {joined.problem}") from joined.problem
        return joined.marks[key]

    def holds(self, key: str, ticket: Mark) -> bool:
        """True if nothing has happened to the key since its ticket. Raises StoreUnavailable."""
        return self.ticket(key) == ticket

    def _lead(self, joined: _Round) -> None:
        """Send the question once the one before it is answered or takes too long. Until then others may join."""
        alone = self._sending.acquire(timeout=self._patience_s)
        with self._joining:
            self._next = _Round()
        try:
            joined.marks = self._ask(joined.keys)
        except StoreError as problem:
            joined.problem = problem
        finally:
            joined.over.set()
            if alone:
                self._sending.release()
