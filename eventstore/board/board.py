"""The board as an API process has it: told of changes by the store, asked by whoever keeps answers."""

import os
from collections.abc import Collection
from pathlib import Path

from eventstore.board.cells import Cells, Ticket, cell_of
from eventstore.board.writer import Writer
from eventstore.types import Command, NewEvent


class Board:
    """One process's part of its server's board, opened after any fork.

    `path` names the memory, as the server has it open. Streams whose names begin with one of `ignored` are those on
    which no answer that is kept depends.
    """

    def __init__(self, path: Path, *, ignored: tuple[str, ...] = ()) -> None:
        """Raises OSError if the server is gone."""
        # Opened anew, not inherited: locks belong to an opening, and each process must have its own.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._cells = Cells(self._descriptor)
        self._writer = Writer(self._cells, self._descriptor)
        self._ignored = ignored

    @property
    def writer(self) -> Writer:
        """The place of this process, for its one combiner."""
        return self._writer

    def cells_changed(self, command: Command) -> Collection[int]:
        """The cells of the keys whose answers the command may change."""
        return {
            cell_of(event.key)
            for event in command.events
            if not (isinstance(event, NewEvent) and event.stream.startswith(self._ignored))
        }

    def ticket(self, key: str) -> Ticket | None:
        """See Cells.ticket."""
        return self._cells.ticket(cell_of(key))

    def holds(self, key: str, ticket: Ticket) -> bool:
        """See Cells.holds."""
        return self._cells.holds(cell_of(key), ticket)

    def close(self) -> None:
        """Give place and memory back."""
        self._cells.close()
        os.close(self._descriptor)
