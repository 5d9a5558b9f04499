"""Trying again: what a projector does about a build whose fold fails."""

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
    """How often a build has failed in a row, and when it is tried again."""

    count: int = 0
    retry_at: float = 0.0


class Attempts:
    """Tries work on builds: one that fails waits and tries again, the others go on; at last its key is parked."""

    def __init__(self) -> None:
        self._failures: dict[str, Failures] = {}

    def may(self, build: Build) -> bool:
        """Whether it is time to try."""
        failures = self._failures.get(build.id)
        return failures is None or time.monotonic() >= failures.retry_at

    def failing(self, build: Build) -> bool:
        """Whether its last try has failed."""
        return build.id in self._failures

    def run(self, connection: sa.Connection, build: Build, work: Callable[[bool], bool]) -> bool:
        """Do `work(isolate)`; False if it failed. Raises what speaks of the database itself or of the machine.

        A machine that is out of memory makes every build fail, and a process that was out of it is best begun anew.
        """
        failures = self._failures.get(build.id, Failures())
        try:
            moved = work(failures.count >= TRIES)
        except MACHINE_FAULTS:
            # The connection is closed on the way out, which undoes what was begun.
            raise
        except Exception as problem:
            connection.rollback()
            if isinstance(problem, DBAPIError) and not is_poison(problem):
                raise
            failures.count += 1
            # What is no event's fault (a type that this program does not know) is waited for, longer and longer.
            pause = min(RETRY_S * 2 ** min(failures.count, 10), RETRY_MAX_S)
            failures.retry_at = time.monotonic() + (RETRY_S if is_poison(problem) else pause)
            self._failures[build.id] = failures
            _log.exception("read model %s fails, try %d", build.id, failures.count)
            return False
        self._failures.pop(build.id, None)
        return moved
