"""Calls of es_append: a batch of commands goes to the database until the outcome of each is known.

It knows neither commands nor outcomes, only texts, ids and answers. One thread uses it: the combiner's of a process
that appends by itself, or that of the appender, which does so for all processes of a server.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from eventstore.board.writer import NoPlace, Writer
from eventstore.connection import BoundedConnection, Failure, connect, failure_of
from eventstore.disk_space import DiskSpace
from eventstore.statement import Statement
from eventstore.types import AppendRejected, StoreUnavailable

BATCH_COMMANDS_MAX = 64
BATCH_BYTES_MAX = 1 << 20
RETRY_PAUSE_S = 0.02
RETRY_PAUSE_MAX_S = 0.5
NOT_BEGUN = "the append could not begin in time; nothing was appended"

# A client that gave up may ask for something else, so a late command must not be appended. The time is looked at under
# the append's own lock: after a server was stopped, or a lock was held, a call may begin when nobody waits for it.
# Locks are taken in the order in which they are given, that of the logs.
APPEND = Statement("""
  WITH locked AS MATERIALIZED (
       SELECT count(*) FROM (SELECT pg_advisory_xact_lock(4711, l) FROM unnest(%s::integer[]) AS l) AS each)
SELECT log.es_append(%s::smallint, %s::jsonb, %s::boolean, %s::text, %s::smallint, %s::bigint)
  FROM locked WHERE clock_timestamp() < %s::timestamptz
""")
_WITHOUT_BOARD = (None, None, None)
_log = logging.getLogger(__name__)

Answer = dict[str, Any]
Connect = Callable[[], BoundedConnection]


def connect_to_append(conninfo: str, timeout_s: float) -> BoundedConnection:
    """A connection for appends, whose statements end within the append's time limit."""
    return connect(conninfo, name="tagtrail-append", statement_timeout_s=timeout_s, lock_timeout_s=timeout_s)


@dataclass(slots=True, eq=False)
class Pending:
    """A command on its way: its JSON text, the cells of the keys it changes, and when nobody waits for it any more.

    `logs` are those that it concerns. A call takes the locks of all that its commands concern (rule: two logs).
    """

    text: str
    cells: Collection[int]
    deadline: float
    logs: Collection[int]

    def succeed(self, answer: Answer) -> None:
        """The answer of es_append. This or `fail` is called once."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """No answer: StoreUnavailable or AppendRejected."""
        raise NotImplementedError


def is_full(batch: Collection[Pending], size: int) -> bool:
    """True if no command may join the batch, with which it would have `size` bytes. Any command may go alone."""
    return len(batch) >= BATCH_COMMANDS_MAX or (len(batch) > 0 and size > BATCH_BYTES_MAX)


class Calls:
    """The calls of one connection.

    `connect` opens it. `disk` is told the result of each call. `writer` is the place on the change board, if there is
    one, which is claimed with each new connection.
    """

    def __init__(
        self, connect: Connect, disk: DiskSpace, *, allow_clock_skew: bool = False, writer: Writer | None = None
    ) -> None:
        self._connect = connect
        self._disk = disk
        self._allow_clock_skew = allow_clock_skew
        self._writer = writer
        self._connection: BoundedConnection | None = None
        # The lead of the database's clock over ours, which counts from some moment of the past.
        self._clock_ahead_s = 0.0
        self.session = 0
        """A random number of the connection that was opened last."""

    def connect_early(self) -> None:
        """Claim the place before there is anything to append, unless the database cannot be reached."""
        if self._writer is not None:
            try:
                self._connected()
            except _Failed as failed:
                _log.warning("the place on the board is claimed later: %s", failed)

    def append(self, batch: list[Pending]) -> None:
        """Settle every command of the batch; the same ids are sent again until the outcome is known."""
        pause = RETRY_PAUSE_S
        while batch:
            try:
                answers = self._call(batch)
            except _Failed as failed:
                if failed.failure is Failure.WRONG:
                    self._reject(batch, failed)
                    return
                batch = self._still_wanted(batch, failed, pause)
                if batch:
                    time.sleep(pause)
                    pause = min(2 * pause, RETRY_PAUSE_MAX_S)
            else:
                for pending, answer in zip(batch, answers, strict=True):
                    pending.succeed(answer)
                return

    def _reject(self, batch: list[Pending], failed: "_Failed") -> None:
        """One bad command fails alone: a batch that was refused whole is run command by command."""
        if len(batch) > 1:
            for pending in batch:
                self.append([pending])
            return
        batch[0].fail(AppendRejected(str(failed)))

    def _still_wanted(self, batch: list[Pending], failed: "_Failed", pause: float) -> list[Pending]:
        """The commands that are wanted still after the pause. The others are told now, while somebody hears the reason.

        A client that gave up was told so; sending its command again would append behind its back.
        """
        wanted = []
        again_at = time.monotonic() + pause
        for pending in batch:
            if again_at < pending.deadline:
                wanted.append(pending)
            else:
                pending.fail(StoreUnavailable(f"the append did not end in time: {failed}"))
        return wanted

    def _call(self, batch: list[Pending]) -> list[Answer]:
        """Call es_append once. Raises _Failed. An outcome that stays unknown leaves its cells open on the board."""
        connection = self._connected()
        cells = {cell for pending in batch for cell in pending.cells}
        self._begin(cells)
        try:
            answers = self._ask(connection, batch)
        except psycopg.Error as error:
            failure = failure_of(error, connection)
            # Without the context, which quotes the function's statements.
            told = error.diag.message_primary or str(error)
            _log.warning("an append of %d commands failed (%s): %s", len(batch), failure.value, told)
            if failure is Failure.LOST:
                self.disconnect()
            else:
                self._end(cells)
            self._disk.failed(error)
            raise _Failed(failure, told) from error
        self._end(cells)
        if answers is None:
            # Or the database's clock was set: a new connection asks for it again.
            self.disconnect()
            raise _Failed(Failure.BUSY, "the database came to it too late, nothing was appended")
        self._disk.found()
        return answers

    def _ask(self, connection: BoundedConnection, batch: list[Pending]) -> list[Answer] | None:
        """The answers of es_append; None if it was too late for the one that waits for the shortest time."""
        text = "[" + ",".join(pending.text for pending in batch) + "]"
        admitted_by = _WITHOUT_BOARD if self._writer is None else self._writer.identity
        wanted_until = datetime.fromtimestamp(min(each.deadline for each in batch) + self._clock_ahead_s, UTC)
        logs = sorted({log for pending in batch for log in pending.logs})
        rows = connection.ask(APPEND, (logs, logs[0], text, self._allow_clock_skew, *admitted_by, wanted_until))
        return rows[0][0] if rows else None

    def _begin(self, cells: Collection[int]) -> None:
        if self._writer is not None:
            self._writer.begin(cells)

    def _end(self, cells: Collection[int]) -> None:
        if self._writer is not None:
            self._writer.end(cells)

    def _connected(self) -> BoundedConnection:
        """The connection, with a claimed place on the board; raises _Failed."""
        if self._connection is None:
            try:
                self._connection = self._connect()
                self.session = secrets.randbits(32)
                (now,) = self._connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone() or (0,)
                self._clock_ahead_s = float(now) - time.monotonic()
                if self._writer is not None:
                    self._writer.claim(self._connection)
            except (psycopg.Error, NoPlace) as error:
                _log.warning("cannot connect to append: %s", error)
                self.disconnect()
                self._disk.failed(error)
                raise _Failed(Failure.BUSY, str(error)) from error
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; the next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Failed(Exception):
    """A call that gave no answers, and what that says."""

    def __init__(self, failure: Failure, cause: str) -> None:
        super().__init__(cause)
        self.failure = failure
