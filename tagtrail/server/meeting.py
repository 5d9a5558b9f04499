"""The socket by which the processes of a server find its appender."""

import os
from pathlib import Path

from eventstore.appender.server import listen

SOCKET_FILE = "append.sock"
# The longest name that the kernel takes for a socket.
_PATH_BYTES_MAX = 107


class MeetingPlace:
    """A socket in the data folder, made and kept by the supervisor, whose lock of the folder nobody else has.

    If its path is longer than the name of a socket may be, it goes by an open file of the supervisor.
    """

    def __init__(self, data: Path) -> None:
        """Raises OSError."""
        self._file = self.path = data.absolute() / SOCKET_FILE
        self._folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if len(os.fsencode(self.path)) > _PATH_BYTES_MAX:
            self.path = Path(f"/proc/{os.getpid()}/fd/{self._folder}") / SOCKET_FILE
        try:
            self._socket = listen(self.path)
        except BaseException:
            os.close(self._folder)
            raise

    @property
    def listener(self) -> int:
        """The file of the socket, for the appender to inherit."""
        return self._socket.fileno()

    def close(self) -> None:
        """Nobody is found there any more."""
        self._socket.close()
        os.close(self._folder)
        self._file.unlink(missing_ok=True)
