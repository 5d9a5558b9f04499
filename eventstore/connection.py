"""Opens the store's connections, and judges what an error on one means for the call under way."""

from enum import Enum

import psycopg
from psycopg import generators
from psycopg.abc import RV, AdaptContext, ConnParam, PQGen
from psycopg.abc import Transformer as Adapting
from psycopg.adapt import Transformer
from psycopg.conninfo import make_conninfo
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import RowFactory, TupleRow, tuple_row

from eventstore.statement import Parameters, Row, Statement, formats_of

CONNECT_TIMEOUT_S = 3
# The time for a server to set up a session, and for its own time limit to be reported.
FIRST_ANSWER_S = 5.0
ANSWER_MARGIN_S = 1.0
WAIT_INTERVAL_S = 0.1

# Classes of server errors after which nothing was done and the same call may go through later: connection and shutdown,
# deadlock and serialization, resources, locks and cancelled statements, input/output.
_TRANSIENT_CLASSES = ("08", "40", "53", "55", "57", "58")
# The session is of no use any more. 25006: the server turned into a standby, the primary is elsewhere. TT004 and TT005:
# the place on the change board, or the board, is not this process's any more (sql/board.sql).
_LOST_STATES = ("57P01", "57P02", "57P03", "57P05", "25006", "TT004", "TT005")


class Failure(Enum):
    """LOST: the outcome is unknown. BUSY: nothing was done, try again. WRONG: nothing was done and never will be."""

    LOST = "lost"
    BUSY = "busy"
    WRONG = "wrong"


class NoAnswer(psycopg.OperationalError):
    """The server said nothing for too long. The connection is closed; the outcome of what was asked is unknown."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that gives up on a server that says nothing.

    `answer_limit_s` bounds each exchange with the server, None bounds none. The kernel of a server that is stopped, or
    a proxy that stalls, still acknowledges what arrives: neither keepalives nor tcp_user_timeout notice them.
    """

    answer_limit_s: float | None = FIRST_ANSWER_S

    def __init__(self, pgconn: PGconn, row_factory: RowFactory[TupleRow] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self._asked_before: set[bytes] = set()
        self._adapts: Adapting | None = None

    def ask(self, statement: Statement, parameters: Parameters = ()) -> list[Row]:
        """All rows of a statement, as `execute(…).fetchall()` would bring them, at less than half the cost.

        Raises as that does. A statement whose result has changed since it was prepared, as by a migration, is prepared
        anew: Postgres looks at this before it executes anything.
        """
        try:
            return self._ask(statement, parameters)
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidSqlStatementName) as error:
            if statement.name not in self._asked_before or self.pgconn.transaction_status != TransactionStatus.IDLE:
                raise
            self._asked_before.discard(statement.name)
            if isinstance(error, psycopg.errors.FeatureNotSupported):
                self.pgconn.send_query(b"DEALLOCATE " + statement.name)
                self._result()
        return self._ask(statement, parameters)

    def _ask(self, statement: Statement, parameters: Parameters) -> list[Row]:
        adapting = self._adapts
        if adapting is None:
            adapting = self._adapts = Transformer(self)
        values = statement.arranged(parameters)
        dumped = adapting.dump_sequence(values, formats_of(values))
        if statement.name not in self._asked_before:
            self.pgconn.send_prepare(statement.name, statement.text)
            self._result()
            self._asked_before.add(statement.name)
        self.pgconn.send_query_prepared(statement.name, dumped, adapting.formats, Format.BINARY)
        result = self._result()
        adapting.set_pgresult(result)
        return adapting.load_rows(0, result.ntuples, tuple)

    def _result(self) -> PGresult:
        """The result of the statement that was sent. Raises the error that the server reported."""
        results: list[PGresult] = self.wait(generators.execute(self.pgconn))
        result = results[-1]
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(result, self.info.encoding)
        return result

    def wait(self, gen: PQGen[RV], interval: float = WAIT_INTERVAL_S, timeout: float | None = None) -> RV:
        """As psycopg's own; raises NoAnswer where the limit is reached."""
        if timeout is not None or self.answer_limit_s is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_limit_s)
        except psycopg.OperationalError:
            # An error that the server told leaves nothing under way.
            if self.closed or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
        self.close()
        raise NoAnswer(f"the database said nothing for {self.answer_limit_s:.1f} s")


def bounded(conninfo: str, *, name: str, connect_timeout_s: int = CONNECT_TIMEOUT_S, **parameters: ConnParam) -> str:
    """The connection string with time limits for connecting, and for noticing that a peer is gone, idle or not."""
    return make_conninfo(
        conninfo,
        application_name=name,
        connect_timeout=connect_timeout_s,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=25_000,
        **parameters,
    )


def connect(
    conninfo: str = "",
    *,
    name: str,
    statement_timeout_s: float | None,
    lock_timeout_s: float | None = None,
    connect_timeout_s: int = CONNECT_TIMEOUT_S,
    prepare_threshold: int | None = 0,
    context: AdaptContext | None = None,
    **parameters: ConnParam,
) -> BoundedConnection:
    """An autocommit connection whose statements end within their time limits, whatever the server does.

    Statements without a limit are for tasks that read the whole log; only a peer that is gone ends them.
    """
    connection = BoundedConnection.connect(
        bounded(conninfo, name=name, connect_timeout_s=connect_timeout_s, **parameters),
        autocommit=True,
        prepare_threshold=prepare_threshold,
        context=context,
    )
    set_limits(connection, statement_timeout_s=statement_timeout_s, lock_timeout_s=lock_timeout_s)
    return connection


def set_limits(
    connection: BoundedConnection, *, statement_timeout_s: float | None, lock_timeout_s: float | None = None
) -> None:
    """Set the session's time limits and zone; SET, because `options` of the caller's conninfo must stay."""
    limits = {"statement_timeout": statement_timeout_s, "lock_timeout": lock_timeout_s}
    settings = {name: f"{round(1000 * limit)}ms" for name, limit in limits.items() if limit is not None}
    settings["timezone"] = "UTC"
    connection.execute(
        "SELECT set_config(s.name, s.value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(settings), list(settings.values())),
    )
    connection.answer_limit_s = None if statement_timeout_s is None else statement_timeout_s + ANSWER_MARGIN_S


def failure_of(error: psycopg.Error, connection: psycopg.Connection) -> Failure:
    """Judge the outcome of a statement on `connection` that raised `error`."""
    if connection.closed or error.sqlstate in _LOST_STATES:
        return Failure.LOST
    if error.sqlstate is not None and error.sqlstate[:2] in _TRANSIENT_CLASSES:
        return Failure.BUSY
    return Failure.WRONG
