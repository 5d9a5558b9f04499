"""The server's side of the board: it makes the memory, registers it and renews the lease.

The registration keeps all others from appending (rule: appends need the board).
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from eventstore.board.cells import Cells, make_memory, now_ns
from eventstore.schema import connected
from eventstore.types import StoreError, StoreUnavailable

LEASE_S = 6.0
_RENEWALS_A_LEASE = 4
_QUESTION_S = 2.0
_LOOK_S = 0.2
_NS = 1_000_000_000
_log = logging.getLogger(__name__)


class LogKept(StoreError):
    """Another server keeps answers of this log; the message says what to do."""


def owner_of(data: Path) -> str:
    """The name of the server of a data folder on this machine, until the machine starts again.

    All processes of a server hold the lock of the folder. So a process that holds it knows that no earlier server
    lives.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    folder = data.stat()
    return f"{boot}/{folder.st_dev}:{folder.st_ino}"


def renounce(url: str, owner: str) -> None:
    """Make sure that this server may append without a board. Raises LogKept, StoreUnavailable.

    Nobody reads the board that an earlier run of this owner left. The lease of another owner is waited for.
    """
    with connected(url, _QUESTION_S) as connection:
        connection.execute("SELECT log.es_remove_board(0::smallint, %s)", (owner,))
        _wait_for_others(lambda: _left_s(connection))


def _left_s(connection: psycopg.Connection) -> float | None:
    row = connection.execute(
        "SELECT extract(epoch FROM b.until + log.es_board_margin() - clock_timestamp())::double precision"
        " FROM log.es_board AS b WHERE b.log_id = 0 AND b.until + log.es_board_margin() > clock_timestamp()"
    ).fetchone()
    return None if row is None else float(row[0])


def _wait_for_others(try_once: Callable[[], float | None]) -> None:
    """Try until the answer is None; otherwise it is the number of seconds that another owner's lease still runs.

    A server that died on another machine leaves some seconds of its lease. One that lives renews it: raises LogKept.
    """
    least_s = math.inf
    while (left_s := try_once()) is not None:
        if left_s > least_s:
            raise LogKept(
                "another server has this log to itself: its own database, or one that it serves with --single-node; "
                "stop that one, or serve without --single-node everywhere"
            )
        least_s = left_s
        time.sleep(min(left_s, _LOOK_S))


class Registrar:
    """The board of one server, from its start to its end.

    The memory needs more `places` than there are ever processes that append at a time. For `lease_s` seconds after the
    last renewal answers are kept, and nobody else may append.
    """

    def __init__(self, url: str, owner: str, places: int, *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._url = url
        self._owner = owner
        self._descriptor = make_memory(places)
        self._cells = Cells(self._descriptor)
        self._epoch = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board-registrar", daemon=True)

    @property
    def path(self) -> Path:
        """The path by which the processes of this server open the memory."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def start(self) -> None:
        """Register, and renew from now on. Raises LogKept, StoreUnavailable."""
        _wait_for_others(self._try_to_register)
        self._thread.start()

    def stop(self) -> None:
        """End the lease, now that no process uses the memory. A database that has ended already is not waited for."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(2 * _QUESTION_S)
        self._cells.lend_until(0)
        try:
            with connected(self._url, _QUESTION_S) as connection:
                connection.execute("SELECT log.es_remove_board(0::smallint, %s)", (self._owner,))
        except (StoreUnavailable, psycopg.Error):
            _log.info("the lease of the board runs out by itself: the database has ended")

    def _try_to_register(self) -> float | None:
        try:
            with connected(self._url, _QUESTION_S) as connection:
                return self._register(connection)
        except psycopg.Error as problem:
            raise StoreUnavailable(f"the change board could not be registered: {problem}") from problem

    def _register(self, connection: psycopg.Connection) -> float | None:
        """Register. Answers None, or the number of seconds for which somebody else's lease still runs."""
        # This comes first: a ticket of the term before must not outlive a moment in which others could append.
        self._cells.lend_until(0)
        self._cells.next_term()
        epoch = self._log_epoch(connection)
        asked_ns = now_ns()
        row = connection.execute(
            "SELECT log.es_register_board(0::smallint, %s, %s, %s)", (self._cells.name, self._owner, self._lease_s)
        ).fetchone()
        if row is not None and row[0] is not None:
            return float(row[0])
        self._epoch = epoch
        self._cells.lend_until(asked_ns + round(self._lease_s * _NS))
        return None

    def _run(self) -> None:
        while not self._ending.wait(self._lease_s / _RENEWALS_A_LEASE):
            try:
                with connected(self._url, _QUESTION_S) as connection:
                    while not self._ending.wait(self._lease_s / _RENEWALS_A_LEASE):
                        self._renew(connection)
            except (StoreUnavailable, psycopg.Error) as problem:
                _log.warning("the lease of the change board could not be renewed, trying again: %s", problem)

    def _renew(self, connection: psycopg.Connection) -> None:
        asked_ns = now_ns()
        # In one statement, because an idle server does little else. The first part may take the lock of the log, which
        # comes before that of the board's row (rule: one lock).
        epoch, renewed = connection.execute(
            "SELECT log.es_note_cluster(0::smallint), log.es_renew_board(0::smallint, %s, %s)",
            (self._cells.name, self._lease_s),
        ).fetchone() or (self._epoch, False)
        if not renewed:
            _log.warning("the registration of the change board was lost; answers are not kept until there is one again")
            self._cells.lend_until(0)
            self._register(connection)
        elif epoch != self._epoch:
            _log.warning("the database was restored or moved; answers that were kept are forgotten")
            self._register(connection)
        else:
            self._cells.lend_until(asked_ns + round(self._lease_s * _NS))

    @staticmethod
    def _log_epoch(connection: psycopg.Connection) -> int:
        """The epoch of the log, which rises when the database is restored (rule: epochs)."""
        row = connection.execute("SELECT log.es_note_cluster(0::smallint)").fetchone()
        return 0 if row is None else int(row[0])
