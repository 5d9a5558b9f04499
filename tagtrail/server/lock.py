"""A lock that allows one supervisor for each data folder. The kernel drops it when its holders end.

The supervisor's children inherit the open file and so hold it too. A new supervisor therefore waits until the watchdog
has ended the children that a killed one has left.
"""

import fcntl
import os
import time
from pathlib import Path

LOCK_FILE = "lock"
SETTINGS_FILE = "server.json"
# Longer than the watchdog ever takes (its STAGES).
LEFTOVERS_TIMEOUT_S = 20.0


class DataFolderInUse(Exception):
    """Another supervisor runs on this data folder."""


class DataFolderLock:
    """Holds <data>/lock while it lives. Raises DataFolderInUse."""

    def __init__(self, data: Path) -> None:
        self.file = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LEFTOVERS_TIMEOUT_S
        while not _try_lock(self.file, fcntl.LOCK_EX):
            holder = _holder(self.file)
            if holder is not None and _lives(holder):
                os.close(self.file)
                raise DataFolderInUse(
                    f"{data.resolve()} is already served by process {holder}; "
                    "stop that one, or give --data another folder"
                )
            if time.monotonic() > deadline:
                os.close(self.file)
                raise DataFolderInUse(
                    f"{data.resolve()} was served by process {holder}, which is gone, but what it started does not "
                    "end; look for processes named tagtrail.server"
                )
            time.sleep(0.05)
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another supervisor start."""
        os.close(self.file)


def settings_file(data: Path) -> Path:
    """The file with a running server's settings, its database included; readable by its user alone."""
    return data / SETTINGS_FILE


def is_held(data: Path) -> bool:
    """True if a supervisor runs on the data folder. Raises PermissionError if that may not be asked."""
    try:
        file = os.open(data / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _try_lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _try_lock(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> int | None:
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
