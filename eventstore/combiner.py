"""One thread of each process that appends all commands that queued during its last call, so that one flush to disk
covers many of them (rule: one combiner). It knows neither commands nor outcomes, only texts, ids and answers.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from eventstore.board.writer import NoPlace, Writer
from eventstore.connection import BoundedConnection, Failure, failure_of
from eventstore.disk_space import DiskSpace
from eventstore.statement import Statement
from eventstore.types import AppendRejected, StoreUnavailable

BATCH_COMMANDS_MAX = 64
BATCH_BYTES_MAX = 1 << 20
RETRY_PAUSE_S = 0.02
RETRY_PAUSE_MAX_S = 0.5
EXIT_STATUS = 70

# A client that gave up may ask for something else, so a late command must not be appended. The time is looked at under
# the append's own lock: after a server was stopped, or a lock was held, a call may begin when nobody waits for it.
APPEND = Statement("""
  WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(4711, 0))
SELECT log.es_append(0::smallint, %s::jsonb, %s::boolean, %s::text, %s::smallint, %s::bigint)
  FROM locked WHERE clock_timestamp() < %s::timestamptz
""")
_WITHOUT_BOARD = (None, None, None)
_log = logging.getLogger(__name__)

Answer = dict[str, Any]
Connect = Callable[[], BoundedConnection]


@dataclass(slots=True, eq=False)
class _Pending:
    """A command on its way. `sent` is guarded by the queue's lock; the rest is written before `settled` is released.

    `settled` is a bare lock that is held until then, because an Event costs six times as much.
    """

    text: str
    cells: Collection[int]
    deadline: float
    sent: bool = False
    answer: Answer | None = None
    error: Exception | None = None
    settled: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.settled.acquire()


class Combiner:
    """Appends commands given by any thread; each call waits for its own outcome.

    `connect` opens the connection that the thread owns. A thread that dies ends the process: nobody else would answer
    the callers that wait, and a process without it looks alive. `disk` is told the result of each call. `writer` is the
    process's place on the change board, if there is one. It is claimed at once, because that settles the cells that a
    dead process left open on it.
    """

    def __init__(
        self, connect: Connect, disk: DiskSpace, *, allow_clock_skew: bool = False, writer: Writer | None = None
    ) -> None:
        self._connect = connect
        self._disk = disk
        self._allow_clock_skew = allow_clock_skew
        self._writer = writer
        self._queue: deque[_Pending] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._connection: BoundedConnection | None = None
        # The lead of the database's clock over ours, which counts from some moment of the past.
        self._clock_ahead_s = 0.0
        self._thread = threading.Thread(target=self._run_or_die, name="append-combiner", daemon=True)
        self._thread.start()

    def append(self, text: str, timeout_s: float, cells: Collection[int] = ()) -> Answer:
        """The answer of es_append to one command, given as its JSON text; `cells` are those of the keys it changes.

        Raises StoreUnavailable when the time is over: the command was withdrawn if it had not been sent, otherwise
        its outcome is unknown. Raises AppendRejected if the function refuses the call.
        """
        pending = _Pending(text, cells, time.monotonic() + timeout_s)
        with self._changed:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._queue.append(pending)
            self._changed.notify()
        if not pending.settled.acquire(timeout=timeout_s):
            self._withdraw(pending)
        if pending.error is not None:
            raise pending.error
        if pending.answer is None:
            raise StoreUnavailable("the append did not end in time; its outcome is unknown")
        return pending.answer

    def close(self, timeout_s: float) -> None:
        """Take no more commands, finish those that were taken, end the thread and its connection."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _withdraw(self, pending: _Pending) -> None:
        with self._changed:
            if not pending.sent:
                self._queue.remove(pending)
                raise StoreUnavailable("the append could not begin in time; nothing was appended")

    def _run_or_die(self) -> None:
        try:
            self._claim_early()
            while batch := self._next_batch():
                self._append(batch)
            self._disconnect()
        except BaseException:  # noqa: BLE001 -- whatever it was, it ends the process
            _log.exception("the append combiner died, so this process ends")
            os._exit(EXIT_STATUS)

    def _claim_early(self) -> None:
        """Claim the place before there is anything to append, unless the database cannot be reached."""
        if self._writer is not None:
            try:
                self._connected()
            except _Failed as failed:
                _log.warning("the place on the board is claimed later: %s", failed)

    def _next_batch(self) -> list[_Pending]:
        """Take what is queued, up to the limits, and mark it as sent. Waits for something; empty once all is closed."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            batch: list[_Pending] = []
            size = 0
            while self._queue and len(batch) < BATCH_COMMANDS_MAX:
                size += len(self._queue[0].text)
                if batch and size > BATCH_BYTES_MAX:
                    break
                pending = self._queue.popleft()
                pending.sent = True
                batch.append(pending)
            return batch

    def _append(self, batch: list[_Pending]) -> None:
        """Settle every command of the batch; the same ids are sent again until the outcome is known."""
        pause = RETRY_PAUSE_S
        while batch:
            try:
                answers = self._call(batch)
            except _Failed as failed:
                if failed.failure is Failure.WRONG:
                    self._reject(batch, failed)
                    return
                time.sleep(pause)
                pause = min(2 * pause, RETRY_PAUSE_MAX_S)
                # A client that gave up was told so; sending its command again would append behind its back.
                batch = self._still_wanted(batch, failed)
            else:
                for pending, answer in zip(batch, answers, strict=True):
                    pending.answer = answer
                    pending.settled.release()
                return

    def _reject(self, batch: list[_Pending], failed: "_Failed") -> None:
        """One bad command fails alone: a batch that was refused whole is run command by command."""
        if len(batch) > 1:
            for pending in batch:
                self._append([pending])
            return
        batch[0].error = AppendRejected(str(failed))
        batch[0].settled.release()

    def _still_wanted(self, batch: list[_Pending], failed: "_Failed") -> list[_Pending]:
        wanted = []
        for pending in batch:
            if time.monotonic() < pending.deadline:
                wanted.append(pending)
            else:
                pending.error = StoreUnavailable(f"the append did not end in time: {failed}")
                pending.settled.release()
        return wanted

    def _call(self, batch: list[_Pending]) -> list[Answer]:
        """Call es_append once. Raises _Failed. An outcome that stays unknown leaves its cells open on the board."""
        connection = self._connected()
        cells = {cell for pending in batch for cell in pending.cells}
        self._begin(cells)
        try:
            answers = self._ask(connection, batch)
        except psycopg.Error as error:
            failure = failure_of(error, connection)
            # Without the context, which quotes the function's statements.
            told = error.diag.message_primary or error
            _log.warning("an append of %d commands failed (%s): %s", len(batch), failure.value, told)
            if failure is Failure.LOST:
                self._disconnect()
            else:
                self._end(cells)
            self._disk.failed(error)
            raise _Failed(failure, str(error)) from error
        self._end(cells)
        if answers is None:
            # Or the database's clock was set: a new connection asks for it again.
            self._disconnect()
            raise _Failed(Failure.BUSY, "the database came to it too late, nothing was appended")
        self._disk.found()
        return answers

    def _ask(self, connection: BoundedConnection, batch: list[_Pending]) -> list[Answer] | None:
        """The answers of es_append; None if it was too late for the one that waits for the shortest time."""
        text = "[" + ",".join(pending.text for pending in batch) + "]"
        admitted_by = _WITHOUT_BOARD if self._writer is None else self._writer.identity
        wanted_until = datetime.fromtimestamp(min(each.deadline for each in batch) + self._clock_ahead_s, UTC)
        rows = connection.ask(APPEND, (text, self._allow_clock_skew, *admitted_by, wanted_until))
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
                (now,) = self._connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone() or (0,)
                self._clock_ahead_s = float(now) - time.monotonic()
                if self._writer is not None:
                    self._writer.claim(self._connection)
            except (psycopg.Error, NoPlace) as error:
                _log.warning("cannot connect to append: %s", error)
                self._disconnect()
                raise _Failed(Failure.BUSY, str(error)) from error
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Failed(Exception):
    """A call that gave no answers, and what that says."""

    def __init__(self, failure: Failure, cause: str) -> None:
        super().__init__(cause)
        self.failure = failure
