"""The appender process: it appends for the other processes of its server until told to stop.

Its one argument is the number of the open socket on which it is found. The supervisor keeps that socket too, so who
asks while the appender is started again waits for it.
"""

import logging
import signal
import socket
import sys
from functools import partial

from eventstore.appender.client import UNDER_WAY_MAX
from eventstore.appender.server import AppendServer
from eventstore.calls import Calls, connect_to_append
from eventstore.disk_space import DiskSpace
from eventstore.feed.waking import Stop
from tagtrail import logs
from tagtrail.config import current_settings
from tagtrail.server.limits import open_files
from tagtrail.server.processes import board_path, end_with_parent, supervisor_pid
from tagtrail.storing import open_board

_FILES_RESERVED = 64
_log = logging.getLogger(__name__)


def main() -> None:
    """Append until SIGTERM or SIGINT; whoever is connected then may finish."""
    settings = current_settings()
    logs.configure(settings, "appender")
    end_with_parent(supervisor_pid())
    stop = Stop()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    # While a worker ends, its successor is there too. One more is the keeper.
    wanted = (2 * settings.workers + 1) * UNDER_WAY_MAX + _FILES_RESERVED
    allowed = open_files(wanted)
    if allowed < wanted:
        _log.warning("limits of open files allow the appender %d files, not %d", allowed, wanted)
    board = open_board(board_path(), for_all=True)
    disk = DiskSpace()
    calls = Calls(
        partial(connect_to_append, settings.database_url, settings.append_timeout_s),
        disk,
        allow_clock_skew=settings.test_clock is not None,
        writer=None if board is None else board.writer,
    )
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        AppendServer(listener, calls, disk, stop).run()


if __name__ == "__main__":
    main()
