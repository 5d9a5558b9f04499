"""Whether the database has lately refused a write because its disk is full. It answers every question meanwhile, so
nothing but a write tells.
"""

import time
from collections.abc import Callable

import psycopg

# So long a refusal speaks against the database if nothing was written since: then writes are to try it again.
KEPT_S = 30.0


class Room:
    """What the writes of one process found; safe for many threads. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: tuple[float, str] | None = None

    def failed(self, cause: BaseException | None) -> None:
        """A write failed; only one for want of room counts."""
        if isinstance(cause, psycopg.errors.DiskFull):
            self._refused = self._clock(), cause.diag.message_primary or str(cause)

    def found(self) -> None:
        """A write went through."""
        self._refused = None

    @property
    def problem(self) -> str | None:
        """Why writes are refused, in the database's words; None if nothing speaks against it."""
        refused = self._refused
        if refused is None or self._clock() - refused[0] > KEPT_S:
            return None
        return refused[1]
