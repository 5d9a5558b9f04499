"""Retries of builds whose fold fails."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from projections.engine.build_tables import Build
from projections.engine.checkpoints import TRIES, is_poison
from projections.model import MACHINE_FAULTS

RETRY_S = 0.2
RETRY_MAX_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Failures:
    """A build's failures in a row, and the time of its next try."""

    count: int = 0
    retry_at: float = 0.0


class Attempts:
    """Tries work on builds. A build that fails is tried again later, and at last its key is parked; others go on."""

    def __init__(self) -> None:
        self._failures: dict[str, Failures] = {}

    def may(self, build: Build) -> bool:
        """True if it is time to try."""
        failures = self._failures.get(build.id)
        return failures is None or time.monotonic() >= failures.retry_at

    def failing(self, build: Build) -> bool:
        """True if its last try has failed."""
        return build.id in self._failures

    def run(self, connection: sa.Connection, build: Build, work: Callable[[bool], bool]) -> bool:
        """Do `work(isolate)`; False if it failed. Raises failures of the database itself and of the machine.

        A machine without memory makes every build fail, and a process that ran out of it is best started anew.
        """
        failures = self._failures.get(build.id, Failures())
        try:
            moved = work(failures.count >= TRIES)
        except MACHINE_FAULTS:
            # The caller closes the connection, which undoes the transaction.
            raise
        except Exception as problem:
            connection.rollback()
            if isinstance(problem, DBAPIError) and not is_poison(problem):
                raise
            failures.count += 1
            # No event is to blame, as with a type that this program does not know: the pauses grow.
            pause = min(RETRY_S * 2 ** min(failures.count, 10), RETRY_MAX_S)
            failures.retry_at = time.monotonic() + (RETRY_S if is_poison(problem) else pause)
            self._failures[build.id] = failures
            _log.exception("read model %s fails, try %d", build.id, failures.count)
            return False
        self._failures.pop(build.id, None)
        return moved
