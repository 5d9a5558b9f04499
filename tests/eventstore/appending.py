"""An appender as a process of its own: python -m tests.eventstore.appending FILE URL [BOARD]."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from eventstore.appender.server import AppendServer, listen
from eventstore.calls import Calls, connect_to_append
from eventstore.disk_space import DiskSpace
from eventstore.feed.waking import Stop
from tagtrail.storing import open_board

APPEND_TIMEOUT_S = 60.0


@dataclass
class Appender:
    """A socket, and the process that serves it or has served it."""

    url: str
    listener: socket.socket
    path: Path
    board: Path | None
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self) -> None:
        """Start it, as a supervisor would start it again."""
        file = self.listener.fileno()
        arguments = [str(file), self.url, *([] if self.board is None else [str(self.board)])]
        self.processes.append(
            subprocess.Popen([sys.executable, "-m", "tests.eventstore.appending", *arguments], pass_fds=[file])
        )

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the process by a signal; its status."""
        self.processes[-1].send_signal(number)
        return self.processes[-1].wait(60)


@contextmanager
def an_appender(url: str, board: Path | None = None, *, started: bool = True) -> Iterator[Appender]:
    """An appender for this database, ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="tt-app-", dir="/tmp") as folder, listen(Path(folder) / "s") as listener:
        made = Appender(url, listener, Path(folder) / "s", board)
        try:
            if started:
                made.start()
            yield made
        finally:
            for each in made.processes:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGCONT)
                each.kill()
                each.wait()


def main(file: str, url: str, board_path: str | None = None) -> None:
    """Append until SIGTERM."""
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    board = None if board_path is None else open_board(Path(board_path), for_all=True)
    disk = DiskSpace()
    writer = None if board is None else board.writer
    calls = Calls(lambda: connect_to_append(url, APPEND_TIMEOUT_S), disk, writer=writer)
    with socket.socket(fileno=int(file)) as listener:
        AppendServer(listener, calls, disk, stop).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
