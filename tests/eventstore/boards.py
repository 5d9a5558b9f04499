"""A change board and the processes that share it, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eventstore.board.board import Board
from eventstore.board.registrar import Registrar
from eventstore.store import Store
from eventstore.types import Appended
from tagtrail.storing import open_board
from tests.eventstore.making import command, event
from tests.postgres import Database

KEY = "you/app"
LEASE_S = 1.0


@contextmanager
def kept_by(database: Database, owner: str = "ours", lease_s: float = LEASE_S) -> Iterator[Registrar]:
    """A board that is registered and renewed."""
    made = Registrar(database.app_url, owner, places=4, lease_s=lease_s)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def member(database: Database, path: Path, **options: Any) -> Iterator[tuple[Store, Board]]:
    """The store and the board of one API process; the store may have options."""
    board = open_board(path)
    assert board is not None
    store = Store(database.app_url, board=board, **options)
    try:
        yield store, board
    finally:
        store.close()
        board.close()


def append(store: Store, stream: str = "s") -> None:
    """One event of KEY."""
    assert isinstance(store.append(command(event(stream, key=KEY))), Appended)
