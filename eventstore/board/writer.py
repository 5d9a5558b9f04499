"""A process's place on the board, where the combiner's thread notes its changes (rule: places have epochs)."""

import fcntl
import os
import struct
from collections.abc import Collection

import psycopg

from eventstore.board.cells import Cells

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("hhqqi4x")
_CLAIM = "SELECT log.es_claim_place(0::smallint, %s, %s::smallint)"


class NoPlace(Exception):
    """All places are taken by living processes."""


class Writer:
    """The place of one process, used by one thread.

    `descriptor` must be this process's own opening of the memory. The lock that holds the place belongs to it, and ends
    with the process. `last` takes the last place, for the appender: its successor then claims the very place at which
    commands of unknown outcome may be under way, before it takes them again. So nobody else ever takes that one.
    """

    def __init__(self, cells: Cells, descriptor: int, *, last: bool = False) -> None:
        self._cells = cells
        self._descriptor = descriptor
        self._last = last
        self._place: int | None = None
        self._name = ""
        self._epoch = 0

    @property
    def identity(self) -> tuple[str, int | None, int]:
        """The identity that admits an append: the board's name, the place, the place's epoch."""
        return self._name, self._place, self._epoch

    def claim(self, connection: psycopg.Connection) -> None:
        """Begin a new epoch on a new connection. After that everything that earlier epochs left open has an outcome.

        Raises NoPlace, and errors of the database.
        """
        if self._place is None:
            self._place = self._take_place()
        name = self._cells.name
        row = connection.execute(_CLAIM, (name, self._place)).fetchone()
        if row is None:
            raise RuntimeError("es_claim_place answered nothing")
        self._name, self._epoch = name, int(row[0])
        self._cells.settle(self._place)

    def begin(self, cells: Collection[int]) -> None:
        """Note, before an append is sent, that it changes these cells."""
        if self._place is None:
            raise RuntimeError("an append without a place on the board")
        self._cells.begin(self._place, cells)

    def end(self, cells: Collection[int]) -> None:
        """Note that its outcome is known."""
        if self._place is not None:
            self._cells.end(self._place, cells)

    def _take_place(self) -> int:
        """Take the first free place. Most often it belonged to a dead process, whose cells become usable again."""
        places = range(self._cells.places)
        usable = places[-1:] if self._last else places[:-1]
        for place in usable:
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
            except BlockingIOError:
                continue
            return place
        raise NoPlace(f"all {len(usable)} places of the board are taken")
