"""Remembers that the database refused a write because its disk is full.

A full database still answers every question, so only writes can tell.
"""

import time
from collections.abc import Callable

import psycopg

# A refusal counts for so long if nothing was written since. Then the next write is to try again.
KEPT_S = 30.0


class DiskSpace:
    """The results of one process's writes; safe for many threads. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: tuple[float, str] | None = None

    def failed(self, cause: BaseException | None) -> None:
        """A write failed; it counts only if the disk was full."""
        if isinstance(cause, psycopg.errors.DiskFull):
            self.refused(cause.diag.message_primary or str(cause))

    def refused(self, reason: str) -> None:
        """A write failed because the disk was full, in the database's words."""
        self._refused = self._clock(), reason

    def found(self) -> None:
        """A write went through."""
        self._refused = None

    @property
    def problem(self) -> str | None:
        """The reason why writes are refused, in the database's words; None if they are not."""
        refused = self._refused
        if refused is None or self._clock() - refused[0] > KEPT_S:
            return None
        return refused[1]
