"""The board as an API process has it: the store tells it of changes, and the cache of answers asks it."""

import os
from collections.abc import Collection
from pathlib import Path

from eventstore.board.cells import Cells, Ticket, cell_of
from eventstore.board.writer import Writer
from eventstore.types import AppendRejected, Command, Expand, NewEvent


class Board:
    """One process's part of its server's board, opened after any fork.

    `path` names the memory, as the server has it open. No kept answer depends on streams whose
    names begin with one of `ignored`. Those that begin with one of `apart` are keys of their own: an answer about
    their event's key does not depend on them, and an answer about them is kept under the stream as its key.
    `last_place` is for the appender (see Writer).
    """

    at_once = True

    def __init__(
        self, path: Path, *, ignored: tuple[str, ...] = (), apart: tuple[str, ...] = (), last_place: bool = False
    ) -> None:
        """Raises OSError if the server is gone."""
        # Opened anew, not inherited: locks belong to an opening, and each process must have its own.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._cells = Cells(self._descriptor)
        self._writer = Writer(self._cells, self._descriptor, last=last_place)
        self._ignored = ignored
        self._apart = apart

    @property
    def writer(self) -> Writer:
        """The place of this process, for its one combiner."""
        return self._writer

    def cells_changed(self, command: Command) -> Collection[int]:
        """The cells of the keys whose answers the command may change. Raises AppendRejected if it may be any."""
        keys = (self._key_of(event) for event in command.events)
        return {cell_of(key) for key in keys if key is not None}

    def _key_of(self, event: NewEvent | Expand) -> str | None:
        if isinstance(event, Expand):
            if event.prefix.startswith(self._apart):
                raise AppendRejected(f"which streams {event.type} would change is not known before the append")
            return event.key
        if event.stream.startswith(self._ignored):
            return None
        return event.stream if event.stream.startswith(self._apart) else event.key

    def watches(self, stream: str) -> bool:
        """True if the stream is a key of its own, so that its events alone end a ticket for it."""
        return stream.startswith(self._apart)

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
