"""Finds the connections from an address, with one listing for all threads that ask meanwhile.

Each open file has to be asked for its other end, which takes tens of milliseconds of the interpreter if thousands are
open. Refused uploads ask, and many of them may come at the same time.
"""

import threading
from collections import defaultdict

from tagtrail.server import sockets


class Listing:
    """The open files of this process by the address of the other end; used by all its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._listed = 0
        self._files: dict[str, list[int]] = {}

    def moment(self) -> int:
        """The present moment, as `files_of` takes it."""
        return self._begun

    def files_of(self, peer: str, moment: int) -> list[int]:
        """The files that were open at this moment and still are, and perhaps later ones. Raises OSError.

        A listing that another thread began after the moment serves as well.
        """
        with self._lock:
            if self._listed <= moment:
                self._begun += 1
                self._files = _files_by_peer()
                self._listed = self._begun
            return self._files.get(peer, [])


def _files_by_peer() -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for file in sockets.in_slices(sockets.files()):
        peer = sockets.peer_address(file)
        if peer is not None:
            found[peer].append(file)
    return found
