"""One thread of each process that appends all commands that queued during its last call, so that one flush to disk
covers many of them (rule: one combiner).
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from eventstore.board.writer import Writer
from eventstore.calls import NOT_BEGUN, RETRY_PAUSE_S, Answer, Calls, Connect, Pending, is_full
from eventstore.disk_space import DiskSpace
from eventstore.types import HISTORY, StoreUnavailable

EXIT_STATUS = 70
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting(Pending):
    """A command that a thread of this process waits for.

    `sent` is guarded by the queue's lock; the rest is written before `settled` is released, a bare lock that is held
    until then, because an Event costs six times as much.
    """

    sent: bool = False
    answer: Answer | None = None
    error: Exception | None = None
    settled: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.settled.acquire()

    def succeed(self, answer: Answer) -> None:
        """See Pending."""
        self.answer = answer
        self.settled.release()

    def fail(self, error: Exception) -> None:
        """See Pending."""
        self.error = error
        self.settled.release()


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
        self._calls = Calls(connect, disk, allow_clock_skew=allow_clock_skew, writer=writer)
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run_or_die, name="append-combiner", daemon=True)
        self._thread.start()

    def append(
        self, text: str, timeout_s: float, cells: Collection[int] = (), logs: Collection[int] = (HISTORY,)
    ) -> Answer:
        """The answer of es_append to one command, given as its JSON text; `cells` are those of the keys it changes.

        `logs` are those that it concerns (see Pending).

        Raises StoreUnavailable when the time is over: the command was withdrawn if it had not been sent, otherwise
        its outcome is unknown. Raises AppendRejected if the function refuses the call.
        """
        pending = _Waiting(text, cells, time.monotonic() + timeout_s, logs)
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

    def _withdraw(self, pending: _Waiting) -> None:
        with self._changed:
            if not pending.sent:
                self._queue.remove(pending)
                raise StoreUnavailable(NOT_BEGUN)

    def _run_or_die(self) -> None:
        try:
            self._calls.connect_early()
            while batch := self._next_batch():
                self._calls.append(batch)
            self._calls.disconnect()
        except BaseException:  # noqa: BLE001 -- whatever it was, it ends the process
            _log.exception("the append combiner died, so this process ends")
            os._exit(EXIT_STATUS)

    def _next_batch(self) -> list[Pending]:
        """Take what is queued, up to the limits, and mark it as sent. Waits for something; empty once all is closed.

        A command whose time is all but over is refused instead: its caller then knows that nothing was appended.
        """
        with self._changed:
            batch: list[Pending] = []
            size = 0
            while not batch:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    break
                in_time = time.monotonic() + RETRY_PAUSE_S
                while self._queue and not is_full(batch, size + len(self._queue[0].text)):
                    pending = self._queue.popleft()
                    pending.sent = True
                    if pending.deadline < in_time:
                        pending.fail(StoreUnavailable(NOT_BEGUN))
                    else:
                        size += len(pending.text)
                        batch.append(pending)
            return batch
