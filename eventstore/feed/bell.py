"""Waiting for something to happen to the log or to read models: by a notification, with a slow look behind it.

A process that has something to do looks often and does not listen, so that a busy log wakes nobody. A process that has
found nothing for a while listens, looks once more, because something may have come before it listened, and sleeps until
it is told.
"""

import select
import time

import psycopg

from eventstore.feed.waking import Stop, Waker

CHANNEL = "es_event"
# It is worth listening only after nothing has come for so long.
QUIET_S = 1.0
# If a notification is lost, as with a proxy that shares connections, its change is found after this time.
LOOK_S = 5.0
RING = f"NOTIFY {CHANNEL}"


class Bell:
    """One connection that listens while there is nothing to do. Used by one thread, outside of transactions."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._listens = False
        self._rang = False
        self._waker = Waker()
        # Notices that come with the answers of other statements count too.
        connection.add_notify_handler(self._note)

    def wait(self, stop: Stop, timeout_s: float = LOOK_S) -> None:
        """Return when it rings, when somebody calls `wake`, after the timeout, or when `stop` is set.

        Returns at once if it did not listen yet.
        """
        if not self._listens:
            self._run(f"LISTEN {CHANNEL}")
            self._listens = True
            return
        until = time.monotonic() + timeout_s
        arrives = select.poll()
        for each in (self._connection, self._waker, stop):
            arrives.register(each.fileno(), select.POLLIN)
        while not (self._rang or stop.is_set()) and (left := until - time.monotonic()) > 0:
            if arrives.poll(1000 * left):
                self._take()
        self._rang = False

    def wake(self) -> None:
        """End the wait that is under way, else the next one; any thread may do so."""
        self._waker.wake()

    def leave(self) -> None:
        """Listen no more: there is something to do."""
        if self._listens:
            self._listens = False
            self._run(f"UNLISTEN {CHANNEL}")
        self._rang = False

    def _take(self) -> None:
        """Take what has arrived. A connection that was lost is noticed by its next statement, which says why."""
        self._rang = self._waker.clear()
        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies() is not None:
                self._rang = True
        except psycopg.Error:
            self._rang = True

    def _note(self, notice: psycopg.Notify) -> None:
        self._rang = True

    def _run(self, statement: str) -> None:
        self._connection.execute(statement)
        if not self._connection.autocommit:
            self._connection.commit()
