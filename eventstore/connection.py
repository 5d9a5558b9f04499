"""How the store opens connections, and what the errors on them mean for a call that was under way."""

from enum import Enum

import psycopg

# Of server errors after which nothing was done and the same call may go through later: connection and shutdown,
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


def connect(
    conninfo: str, *, name: str, connect_timeout_s: int, statement_timeout_s: float, lock_timeout_s: float
) -> psycopg.Connection:
    """An autocommit connection whose statements end within their time limits."""
    connection = psycopg.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=0,
        connect_timeout=connect_timeout_s,
        application_name=name,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=round(1000 * (statement_timeout_s + lock_timeout_s)),
    )
    set_limits(connection, statement_timeout_s=statement_timeout_s, lock_timeout_s=lock_timeout_s)
    return connection


def set_limits(connection: psycopg.Connection, *, statement_timeout_s: float, lock_timeout_s: float) -> None:
    """Set the session's time limits and zone; SET, because `options` of the caller's conninfo must stay."""
    connection.execute(
        "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
        " set_config('timezone', 'UTC', false)",
        (f"{round(1000 * statement_timeout_s)}ms", f"{round(1000 * lock_timeout_s)}ms"),
    )


def failure_of(error: psycopg.Error, connection: psycopg.Connection) -> Failure:
    """What `error`, raised by a statement on `connection`, says of that statement."""
    if connection.closed or error.sqlstate in _LOST_STATES:
        return Failure.LOST
    if error.sqlstate is not None and error.sqlstate[:2] in _TRANSIENT_CLASSES:
        return Failure.BUSY
    return Failure.WRONG
