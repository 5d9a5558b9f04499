"""Samples the memory of the processes of a running server while something happens."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import RunningServer

SAMPLE_S = 0.1


@dataclass
class Memory:
    """The largest proportional set size (PSS) of any process of each kind, in bytes."""

    most: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    samples: int = 0

    def sample(self, server: RunningServer) -> None:
        """Look once at every process."""
        kinds = {server.process.pid: "supervisor"}
        kinds |= {pid: name for name, pid in server.children().items()}
        kinds |= dict.fromkeys(server.workers(), "worker")
        for pid in (server.process.pid, *server.descendants()):
            # A process that has none of our names is one of Postgres.
            kind = kinds.get(pid, "postgres")
            self.most[kind] = max(self.most[kind], pss(pid))
        self.samples += 1

    def __str__(self) -> str:
        return ", ".join(f"{kind} {most / 1e6:.0f} MB" for kind, most in sorted(self.most.items()))


def pss(pid: int) -> int:
    """The proportional set size of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextmanager
def watching(server: RunningServer) -> Iterator[Memory]:
    """Sample the memory of the server's processes again and again during the block."""
    ended = threading.Event()
    memory = Memory()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            memory.sample(server)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
