"""The socket by which the processes of a server find its appender."""

import os
from pathlib import Path

from eventstore.appender.server import listen

SOCKET_FILE = "append.sock"


class MeetingPlace:
    """A socket in the data folder, made and kept by the supervisor, whose lock of the folder nobody else has.

    Its path goes by an open file of the supervisor, because that of the folder may be longer than the name of a socket.
    """

    def __init__(self, data: Path) -> None:
        """Raises OSError."""
        self._file = data / SOCKET_FILE
        self._folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        short = Path(f"/proc/{os.getpid()}/fd/{self._folder}")
        self.path = (short if short.exists() else data) / SOCKET_FILE
        self._socket = listen(self.path)

    @property
    def listener(self) -> int:
        """The file of the socket, for the appender to inherit."""
        return self._socket.fileno()

    def close(self) -> None:
        """Nobody is found there any more."""
        self._socket.close()
        os.close(self._folder)
        self._file.unlink(missing_ok=True)
