"""One supervisor a data folder: a lock that the kernel drops with its holder, so that a killed one leaves nothing."""

import fcntl
import os
from pathlib import Path


class DataFolderInUse(Exception):
    """Another supervisor runs on this data folder."""


class DataFolderLock:
    """Holds <data>/lock while it lives."""

    def __init__(self, data: Path) -> None:
        self._file = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            pid = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise DataFolderInUse(
                f"{data.resolve()} is already served by process {pid}; stop that one, or give --data another folder"
            ) from problem
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another supervisor start."""
        os.close(self._file)


def is_held(data: Path) -> bool:
    """Whether a supervisor runs on the data folder."""
    try:
        file = os.open(data / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
