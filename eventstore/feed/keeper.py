"""The keeper runs a log's tasks of upkeep, each with its own period, and notes the state of each.

One keeper is active, by a lease. Every task is safe to run twice, so it does no harm if two keepers both believe that
they have the lease. A task works in slices and is broken off after a while in favour of the others. One that fails is
tried again later, and holds up no other.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from domain.features import HANDLED
from eventstore.connection import connect
from eventstore.feed.members import Member, Membership, only
from eventstore.types import Clock
from eventstore.upkeep import Step

LEASE = "keeper/0"
LEASE_S = 20.0
BEAT_S = 5.0
STANDBY_S = 1.0
ROUND_S = 5.0
RETRY_S = 60.0
STATEMENT_TIMEOUT_S = 5.0
# The same limit as for the clock of an append.
CLOCK_OFF_MAX = timedelta(minutes=5)
PROBLEM_CHARACTERS = 500

_NOTE = """
INSERT INTO feed.task AS t (name, tried_at, succeeded_at, removed, backlog, problem)
VALUES (%(name)s, clock_timestamp(), CASE WHEN %(problem)s::text IS NULL THEN clock_timestamp() END, %(removed)s,
        coalesce(%(backlog)s, 0), %(problem)s)
ON CONFLICT (name) DO UPDATE
   SET tried_at = excluded.tried_at, succeeded_at = coalesce(excluded.succeeded_at, t.succeeded_at),
       removed = t.removed + excluded.removed, backlog = coalesce(%(backlog)s, t.backlog), problem = excluded.problem
"""
# There is at least one row, so that a keeper is known before any task was run.
TASK_STATES = """
SELECT EXISTS (SELECT FROM feed.lease AS l WHERE l.name = %(lease)s AND l.until > clock_timestamp()) AS up,
       t.name, extract(epoch FROM t.succeeded_at) AS succeeded_s, t.problem IS NOT NULL AS failing, t.backlog, t.removed
  FROM (SELECT) AS one LEFT JOIN feed.task AS t ON true ORDER BY t.name
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """A task: its period, one slice of its work, and the amount of work that waits."""

    name: str
    period_s: float
    step: Callable[[], Step]
    backlog: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round of a task; `more` says that it was broken off."""

    removed: int
    more: bool
    problem: str | None = None


class Keeper:
    """One candidate for keeping a log.

    `clock` is the one by which the tasks tell what is old; they are left alone while it is far from the database's.
    None leaves that out, for tests that move it.
    """

    def __init__(self, database_url: str, tasks: Sequence[Task], clock: Clock | None) -> None:
        self._url = database_url
        self._tasks = tasks
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Keep the log until stopped, or stand by while another keeper does."""
        member = Member("keeper", features=HANDLED["keeper"])
        members = Membership(self._url, member, only(LEASE), beat_s=BEAT_S, lease_s=LEASE_S).start()
        due = dict.fromkeys(self._tasks, 0.0)
        try:
            while not stop.is_set():
                if LEASE not in members.held:
                    stop.wait(STANDBY_S)
                    continue
                task = min(due, key=lambda each: due[each])
                if stop.wait(max(0.0, due[task] - time.monotonic())) or LEASE not in members.held:
                    continue
                done = self.round(task, stop)
                due[task] = time.monotonic() + _pause_s(task, done)
        finally:
            members.close()

    def round(self, task: Task, stop: threading.Event) -> Round:
        """Work on a task for a while and note its state."""
        wrong = self._wrong_clock()
        done = _work(task, stop) if wrong is None else Round(0, False, wrong)
        if done.removed:
            _log.info("upkeep: %s removed %d", task.name, done.removed)
        self._note(task, done, _backlog(task))
        return done

    def _wrong_clock(self) -> str | None:
        """The reason for which no task may work now. By a clock that is far ahead, things in use look old; a time that
        a clock far behind leaves in the database looks old to the next keeper.
        """
        if self._clock is None:
            return None
        try:
            with self._connected() as connection:
                row = connection.execute("SELECT clock_timestamp()").fetchone()
        except psycopg.Error as problem:
            return f"the time of the database could not be asked: {problem}"[:PROBLEM_CHARACTERS]
        ahead = timedelta() if row is None else self._clock() - row[0]
        if abs(ahead) <= CLOCK_OFF_MAX:
            return None
        side = "ahead of" if ahead > timedelta() else "behind"
        told = f"the clock of the keeper's machine is {abs(ahead).total_seconds():.0f} s {side} the database's"
        _log.error("upkeep: nothing is removed: %s", told)
        return told

    def _connected(self) -> psycopg.Connection:
        return connect(self._url, name="tagtrail-keeper", statement_timeout_s=STATEMENT_TIMEOUT_S)

    def _note(self, task: Task, done: Round, backlog: int | None) -> None:
        values = {"name": task.name, "removed": done.removed, "backlog": backlog, "problem": done.problem}
        try:
            with self._connected() as connection:
                connection.execute("SET synchronous_commit = off")
                connection.execute(_NOTE, values)
        except psycopg.Error as problem:
            _log.warning("the state of %s could not be noted: %s", task.name, problem)


def _work(task: Task, stop: threading.Event) -> Round:
    began = time.monotonic()
    removed, more = 0, True
    try:
        # One step at least: a task that was not even tried would be noted as one that went well.
        while more:
            step = task.step()
            removed, more = removed + step.removed, step.more
            if stop.is_set() or time.monotonic() - began >= ROUND_S:
                break
    except MemoryError:
        raise
    except Exception as problem:  # noqa: BLE001 -- whatever it was, the other tasks go on, and this one is tried again
        _log.exception("upkeep: %s failed, it is tried again", task.name)
        return Round(removed, False, f"{type(problem).__name__}: {problem}"[:PROBLEM_CHARACTERS])
    return Round(removed, more)


def _backlog(task: Task) -> int | None:
    try:
        return task.backlog()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 -- as above
        _log.exception("upkeep: the backlog of %s is not known", task.name)
        return None


def _pause_s(task: Task, done: Round) -> float:
    if done.problem is not None:
        return min(task.period_s, RETRY_S)
    return 0.0 if done.more else task.period_s
