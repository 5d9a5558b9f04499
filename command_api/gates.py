"""The gate before work on bytes: few threads hash, write and flush at a time, however many requests there are."""

import threading

WORKERS_MAX = 8


class WorkGate:
    """Lets a few threads work (hash, write, flush) at a time; never held while waiting for a client."""

    def __init__(self, workers_max: int = WORKERS_MAX) -> None:
        self._free = threading.BoundedSemaphore(workers_max)

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()
