"""Appends of many processes on one log: `python bench/appenders.py [CLIENTS]`, default 64 clients in all.

First 1, 4, 16 and 64 processes that append by themselves (one Store each, as a worker has), then the same through one
appender (see docs/decisions/0016-appender.md); then 1, 2, 4, 8 and 16 servers with an appender each on one log. The
number of clients is always the same. Rounds are taken in turn, and the medians are printed: appends a second, p50, p99,
and the ratio to one process that appends by itself.
"""

import multiprocessing
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.appends import append
from eventstore.appender.server import AppendServer, listen
from eventstore.calls import Calls, connect_to_append
from eventstore.disk_space import DiskSpace
from eventstore.feed.waking import Stop
from eventstore.store import Store
from tests.postgres import new_database, throwaway

CLIENTS = 64
PROCESSES = (1, 4, 16, 64)
SERVERS = (1, 2, 4, 8, 16)
SECONDS = 4.0
ROUNDS = 3
CLIENTS_A_PROCESS = 4
# Before it is measured: connections are made, and plans.
WARM_S = 0.7
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Figures:
    """One round."""

    rate: float
    p50_ms: float
    p99_ms: float


def work(url: str, socket: Path | None, clients: int, ready: Barrier, answer: Connection) -> None:
    """One process: its clients append one after another until the time is over."""
    store = Store(url, append_timeout_s=60.0, appender=socket)

    def one(_: int) -> list[float]:
        took = []
        warm_until = time.monotonic() + WARM_S
        until = warm_until + SECONDS
        while (now := time.monotonic()) < until:
            seconds = append(store)
            if now >= warm_until:
                took.append(seconds)
        return took

    with ThreadPoolExecutor(clients) as pool:
        append(store)
        ready.wait()
        answer.send([seconds for each in pool.map(one, range(clients)) for seconds in each])
    store.close()


def measured(url: str, processes: int, clients: int, sockets: Sequence[Path | None]) -> Figures:
    """One round of so many processes, which are spread over the appenders."""
    ready = _FORK.Barrier(processes)
    pipes = []
    children = []
    for number in range(processes):
        ours, theirs = _FORK.Pipe(duplex=False)
        arguments = (url, sockets[number % len(sockets)], clients // processes, ready, theirs)
        children.append(_FORK.Process(target=work, args=arguments))
        children[-1].start()
        theirs.close()
        pipes.append(ours)
    took = sorted(seconds for each in pipes for seconds in each.recv())
    for child in children:
        child.join()
    return Figures(len(took) / SECONDS, 1000 * took[len(took) // 2], 1000 * took[len(took) * 99 // 100])


def append_for_others(url: str, socket: Path, ready: Event) -> None:
    """An appender, as a server has one."""
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    disk = DiskSpace()
    with listen(socket) as listener:
        ready.set()
        AppendServer(listener, Calls(lambda: connect_to_append(url, 60.0), disk), disk, stop).run()


@contextmanager
def appenders(url: str, folder: Path, number: int) -> Iterator[list[Path]]:
    """So many of them; their sockets."""
    children, sockets = [], []
    for each in range(number):
        ready = _FORK.Event()
        sockets.append(folder / f"{number}-{each}.sock")
        children.append(_FORK.Process(target=append_for_others, args=(url, sockets[-1], ready)))
        children[-1].start()
        ready.wait()
    try:
        yield sockets
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join()


def main(clients: int) -> None:
    """Measure all, in turn."""
    found: dict[str, list[Figures]] = defaultdict(list)
    with (
        throwaway(max_connections="300", shared_buffers="96MB", max_wal_size="1GB") as server,
        TemporaryDirectory() as made,
    ):
        url, folder = new_database(server).app_url, Path(made)
        for _ in range(ROUNDS):
            for processes in PROCESSES:
                found[f"{processes:2} processes, each by itself"].append(measured(url, processes, clients, [None]))
                with appenders(url, folder, 1) as sockets:
                    figures = measured(url, processes, clients, sockets)
                found[f"{processes:2} processes, one appender"].append(figures)
            for servers in SERVERS:
                with appenders(url, folder, servers) as sockets:
                    figures = measured(url, max(servers, clients // CLIENTS_A_PROCESS), clients, sockets)
                found[f"{servers:2} servers of one appender"].append(figures)
    alone = found[" 1 processes, each by itself"]
    for name, rounds in found.items():
        rate, p50, p99 = (statistics.median(getattr(each, what) for each in rounds) for what in Figures.__slots__)
        ratio = statistics.median(each.rate / one.rate for each, one in zip(rounds, alone, strict=True))
        print(f"{name}: {rate:7,.0f} appends/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS)
