"""Questions to the log: each is one SQL statement in autocommit, asked again if its connection was lost."""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from eventstore.connection import Failure, failure_of, set_limits
from eventstore.types import StoreError, StoreUnavailable

Row = tuple[Any, ...]

# After an outage the pool must not wait out a long back-off before it connects again.
_RECONNECT_TIMEOUT_S = 1.0
_CONNECT_TIMEOUT_S = 3
_RETRY_PAUSE_S = 0.005


class Reader:
    """A pool of connections, opened with the first question."""

    def __init__(self, conninfo: str, *, pool_size: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pool = ConnectionPool(
            conninfo,
            min_size=0,
            max_size=pool_size,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0,
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "application_name": "tagtrail-store",
            },
            configure=self._configure,
            timeout=timeout_s,
            reconnect_timeout=_RECONNECT_TIMEOUT_S,
            name="store",
        )
        self._pool.open(wait=False)

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of one statement. Raises StoreUnavailable if the database does not answer in time."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with self._pool.connection(timeout=max(0.0, deadline - time.monotonic())) as connection:
                    try:
                        return connection.execute(query, parameters).fetchall()
                    except psycopg.Error as error:
                        self._judge(error, connection, deadline)
            except PoolTimeout as error:
                raise StoreUnavailable("the database cannot be reached") from error
            time.sleep(_RETRY_PAUSE_S)

    def _judge(self, error: psycopg.Error, connection: psycopg.Connection, deadline: float) -> None:
        """Return if the question may be asked again on another connection, otherwise raise what the caller gets."""
        failure = failure_of(error, connection)
        if failure is Failure.WRONG:
            raise StoreError(str(error)) from error
        if failure is Failure.BUSY or time.monotonic() > deadline:
            raise StoreUnavailable(f"the database did not answer: {error}") from error
        # The pool throws a closed connection away.
        connection.close()

    def row(self, query: str, parameters: Sequence[object] = ()) -> Row:
        """The only row of a statement that always has one."""
        (row,) = self.rows(query, parameters)
        return row

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _configure(self, connection: psycopg.Connection) -> None:
        set_limits(connection, statement_timeout_s=self._timeout_s, lock_timeout_s=self._timeout_s)
        # Every question has its index; a plan kept since the log was empty must use it too.
        connection.execute("SET enable_seqscan = off")
