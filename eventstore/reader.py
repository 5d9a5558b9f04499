"""Questions to the database: each is one SQL statement in autocommit, asked again if its connection was lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from eventstore.connection import ANSWER_MARGIN_S, BoundedConnection, Failure, bounded, failure_of, set_limits
from eventstore.partition import PARTITIONS
from eventstore.statement import Parameters, Row, Statement
from eventstore.types import StoreError, StoreUnavailable

# After an outage the pool must not wait out a long back-off before it connects again.
_RECONNECT_TIMEOUT_S = 1.0
# A waiting question asks for a connection again so often, because nobody is told of one that could not be made.
_POOL_WAIT_S = 1.0
_RETRY_PAUSE_S = 0.005


class Reader:
    """A pool of connections, opened with the first question, in the process that asks it."""

    def __init__(self, conninfo: str, *, pool_size: int, timeout_s: float, name: str) -> None:
        self._timeout_s = timeout_s
        self._partitions: int | None = None
        self._pool = ConnectionPool(
            bounded(conninfo, name=name),
            connection_class=BoundedConnection,
            min_size=0,
            max_size=pool_size,
            open=False,
            kwargs={"autocommit": True, "prepare_threshold": 0},
            configure=self._configure,
            timeout=timeout_s,
            reconnect_timeout=_RECONNECT_TIMEOUT_S,
            name=name,
        )

    def rows(self, query: str | Statement, parameters: Parameters = ()) -> list[Row]:
        """All rows of one statement. Raises StoreUnavailable if the database does not answer in time."""
        deadline = time.monotonic() + self._timeout_s
        self._open()
        while True:
            try:
                wait_s = max(0.0, min(deadline - time.monotonic(), _POOL_WAIT_S))
                with self._pool.connection(timeout=wait_s) as connection:
                    # The time that waiting for the connection took is not left for the answer.
                    connection.answer_limit_s = max(0.0, deadline - time.monotonic()) + ANSWER_MARGIN_S
                    try:
                        if isinstance(query, Statement):
                            return connection.ask(query, parameters)
                        return connection.execute(query, parameters).fetchall()
                    except psycopg.Error as error:
                        self._judge(error, connection, deadline)
            except PoolTimeout as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable("the database cannot be reached") from error
            time.sleep(_RETRY_PAUSE_S)

    def _judge(self, error: psycopg.Error, connection: psycopg.Connection, deadline: float) -> None:
        """Return if the question may be asked again on another connection, otherwise raise the caller's error."""
        failure = failure_of(error, connection)
        if failure is Failure.WRONG:
            raise StoreError(str(error)) from error
        if failure is Failure.BUSY or time.monotonic() > deadline:
            raise StoreUnavailable(f"the database did not answer: {error}") from error
        # The pool throws a closed connection away.
        connection.close()

    def row(self, query: str | Statement, parameters: Parameters = ()) -> Row:
        """The only row of a statement that always has one."""
        (row,) = self.rows(query, parameters)
        return row

    @contextmanager
    def lent(self, answer_limit_s: float) -> Iterator[BoundedConnection]:
        """A connection for some statements of this process's own upkeep. Raises errors of the database."""
        self._open()
        with self._pool.connection(timeout=answer_limit_s) as connection:
            connection.answer_limit_s = answer_limit_s
            yield connection

    @property
    def partitions(self) -> int:
        """The log's number of partitions, asked once, because it never changes. Raises as `rows` does."""
        if self._partitions is None:
            self._partitions = int(self.row(PARTITIONS)[0])
        return self._partitions

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _open(self) -> None:
        if self._pool.closed:
            self._pool.open(wait=False)

    def _configure(self, connection: BoundedConnection) -> None:
        set_limits(connection, statement_timeout_s=self._timeout_s, lock_timeout_s=self._timeout_s)
        # Every question has its index; a plan kept since the log was empty must use it too. A scan of a small table,
        # such as all checkpoints, would cost as much as the rest of a question.
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET default_transaction_isolation = 'read committed'")
