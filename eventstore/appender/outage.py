"""Remembers that the appender gives no answers (rule: one appender)."""

import logging
import threading
import time
from collections.abc import Callable

# So long a command that ended without an answer counts, unless one came since. Then the next command is to try again.
KEPT_S = 30.0
_log = logging.getLogger(__name__)


class Outage:
    """The answers that one process missed; safe for many threads. `clock` gives seconds that never go back.

    Many threads miss them at the same time, so only the first and the end are logged.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._lasts = False
        self._gave_up_at: float | None = None

    def missed(self, problem: Exception) -> None:
        """An answer did not come; it is asked for again while there is time."""
        with self._changing:
            first, self._lasts = not self._lasts, True
        if first:
            _log.warning("the appender gave no answer, asking again: %s", problem)

    def gave_up(self) -> None:
        """The time of a command was over before an answer came."""
        self._gave_up_at = self._clock()

    def answered(self) -> None:
        """An answer came."""
        self._gave_up_at = None
        if self._lasts:
            with self._changing:
                ended, self._lasts = self._lasts, False
            if ended:
                _log.info("the appender answers again")

    @property
    def problem(self) -> str | None:
        """A text that tells of an appender that gives no answers; None if it gives some."""
        gave_up_at = self._gave_up_at
        if gave_up_at is None or self._clock() - gave_up_at > KEPT_S:
            return None
        return "the appender gives no answer"
