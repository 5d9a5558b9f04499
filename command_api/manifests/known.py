"""Manifests that this process has seen in the log, by the names of their streams."""

import threading

NAMES_MAX = 4096


class KnownManifests:
    """The streams that have an event, so that the log has the bytes of their manifests.

    That stays so, but for a database that is restored: an append notices if the bytes are missing.
    """

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self._names_max = names_max
        self._names: dict[str, None] = {}
        self._changing = threading.Lock()

    def has(self, stream: str) -> bool:
        """True if the stream is known to have an event."""
        return stream in self._names

    def learn(self, stream: str) -> None:
        """Remember a stream that has an event; the oldest ones are forgotten."""
        with self._changing:
            self._names.pop(stream, None)
            self._names[stream] = None
            while len(self._names) > self._names_max:
                del self._names[next(iter(self._names))]
