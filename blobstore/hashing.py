"""Running hashes of open sessions, so that a session is not hashed again for each request.

A process keeps hashes only over bytes that it has seen whole and that the log has recorded: those never change,
whichever process writes next. Other hashes could outlive their bytes and vouch for different ones
(rule: hashes of recorded bytes).
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from domain.digests import DEFAULT_ALGORITHM, Hash, new_hash

SESSIONS_MAX = 1024


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
        self._hashes: OrderedDict[str, RunningHashes] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, session: str, size: int, algorithm: str) -> RunningHashes | None:
        """The hashes over the session's first `size` bytes; None if this process has not hashed just those."""
        with self._lock:
            kept = self._hashes.pop(session, None)
        if kept is not None and kept.size == size:
            return kept
        if size == 0:
            return RunningHashes(0, {name: new_hash(name) for name in {DEFAULT_ALGORITHM, algorithm}})
        return None

    def give_back(self, session: str, hashes: RunningHashes | None) -> None:
        """Keep the hashes for the session's next request."""
        if hashes is None or hashes.size == 0:
            return
        with self._lock:
            self._hashes[session] = hashes
            while len(self._hashes) > self._sessions_max:
                self._hashes.popitem(last=False)

    def forget(self, session: str) -> None:
        """Drop the hashes of a session that has ended."""
        with self._lock:
            self._hashes.pop(session, None)
