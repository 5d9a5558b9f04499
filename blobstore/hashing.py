"""Running hashes of open sessions, so that a session is not hashed again for each request.

A process keeps hashes only over bytes that it has seen whole and that the log has recorded: those never change,
whichever process writes next. Other hashes could outlive their bytes and vouch for different ones
(rule: hashes of recorded bytes). For the same reason they are kept for one file and not for a name: another process
may have made the file anew, because it believed that nothing had happened to the session yet.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

from domain.digests import DEFAULT_ALGORITHM, Hash, new_hash

SESSIONS_MAX = 1024

# The inode of a file and the time of its last change, in nanoseconds.
FileMark = tuple[int, int]


def mark_of(found: os.stat_result) -> FileMark:
    """The mark of a file that is held alone: any other file of the name, and this one once changed, has another."""
    return found.st_ino, found.st_mtime_ns


@dataclass(slots=True)
class RunningHashes:
    """Hashes over a session's first `size` bytes, by algorithm."""

    size: int
    hashes: dict[str, Hash]

    def update(self, block: bytes) -> None:
        """Take the next block."""
        for each in self.hashes.values():
            each.update(block)
        self.size += len(block)

    def copy(self) -> "RunningHashes":
        """Independent hashes at the same state."""
        return RunningHashes(self.size, {name: each.copy() for name, each in self.hashes.items()})


class HashCache:
    """The hashes of the sessions used last. Other sessions are hashed again from their files when needed."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self._hashes: OrderedDict[str, tuple[FileMark, RunningHashes]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, session: str, size: int, algorithm: str, mark: FileMark) -> RunningHashes | None:
        """The hashes over the session's first `size` bytes; None if this process has not hashed just those.

        `mark` is that of the session's file, which the caller holds alone.
        """
        with self._lock:
            kept_mark, kept = self._hashes.pop(session, (mark, None))
        if kept is not None and kept.size == size and kept_mark == mark:
            return kept
        if size == 0:
            return RunningHashes(0, {name: new_hash(name) for name in {DEFAULT_ALGORITHM, algorithm}})
        return None

    def give_back(self, session: str, hashes: RunningHashes | None, mark: FileMark) -> None:
        """Keep the hashes for the session's next request; `mark` is that of the file as it is left, still held."""
        if hashes is None or hashes.size == 0:
            return
        with self._lock:
            self._hashes[session] = mark, hashes
            while len(self._hashes) > self._sessions_max:
                self._hashes.popitem(last=False)

    def forget(self, session: str) -> None:
        """Drop the hashes of a session that has ended."""
        with self._lock:
            self._hashes.pop(session, None)
