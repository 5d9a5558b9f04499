"""The event store of one process, made from its settings."""

from pathlib import Path

from domain.streams import BLOB_PREFIX, LINK_PREFIX, REPOSITORY_PREFIX, UPLOAD_PREFIX
from eventstore.board.board import Board
from eventstore.store import Store
from tagtrail.clock import make_clock
from tagtrail.config import Settings


def open_board(path: Path | None, *, for_all: bool = False) -> Board | None:
    """The process's part of the change board of its server, if that has one; `for_all` is the appender's."""
    # No kept answer depends on sessions, on the stream that all repositories share of a blob (the link has its size),
    # or on the creation of the repository, which each commit of a blob makes sure of.
    if path is None:
        return None
    # A blob is asked for by its link. No other event of a repository changes those answers, and no manifest changes
    # with a link.
    return Board(
        path, ignored=(UPLOAD_PREFIX, BLOB_PREFIX, REPOSITORY_PREFIX), apart=(LINK_PREFIX,), last_place=for_all
    )


def make_store(settings: Settings, board: Board | None, appender: Path | None = None) -> Store:
    """The store; it connects when it is first used. `appender` is the socket of its appender, if it has one."""
    return Store(
        settings.database_url,
        pool_size=settings.database_pool,
        append_timeout_s=settings.append_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        allow_clock_skew=settings.test_clock is not None,
        clock=make_clock(settings),
        board=board,
        appender=appender,
    )
