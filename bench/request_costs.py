"""Measures the processor time of each kind of read, and where it goes: `python bench/request_costs.py [SECONDS]`.

Starts `tagtrail serve` over 2,000 small images and asks for each route with 16 clients for SECONDS (default 3), three
times in turn. Prints the medians for one request: the microseconds of processor time of the workers, in programs and
in the kernel, and of all our processes together; and how often threads took turns. Where `perf` is there and allowed,
it also prints the shares of Python, of the HTTP server, of the C library and of the kernel. Figures of two runs can be
compared only if the machine did nothing else.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.registries import loading, peers, population, processes
from tests.servers import children_of, command_of

SIZE = population.Size(images=2_000, repositories=200, big_bytes=4 << 20)
ROUNDS = 3
_TICKS_S = os.sysconf("SC_CLK_TCK")
# The first half of the manifests warms what is shared, see `manifest-tag-first` in bench/registries/rows.py.
_ONCE = ("-once", "-half")
_PROFILE = "perf.data"
# So few samples a second that the profile does not show in the times.
_SAMPLES_S = "500"
# A part of the name of a program file or library that runs in a worker, and its name in the printed table.
_PARTS = {
    "libpython": "Python",
    "python3": "Python",
    "_granian": "HTTP server",
    "libc.so": "C library",
    "[kernel": "kernel",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of request. If it is `first`, a server is started for each round, and each thing is asked for once."""

    name: str
    what: str
    method: str = "GET"
    first: bool = False


ROUTES = (
    Route("GET /v2/", "ping"),
    Route("GET manifest by tag", "manifest-tag"),
    Route("HEAD manifest by tag", "manifest-tag", "HEAD"),
    Route("GET manifest by digest", "manifest-digest"),
    Route("HEAD blob", "blob", "HEAD"),
    Route("GET blob 4 KiB", "blob"),
    Route("GET manifest by tag, first time", "manifest-tag", first=True),
)


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds of the workers in programs and in the kernel, those of all our processes, and how often
    threads of the workers took turns.
    """

    programs_s: float
    kernel_s: float
    all_s: float
    changes: int


def workers(running: peers.Running) -> list[int]:
    """The pids of the API's workers."""
    (api,) = (pid for pid in children_of(running.pid) if "tagtrail.server.api" in command_of(pid))
    return children_of(api)


def used(running: peers.Running) -> Used:
    """The processor time and changes of thread since the server was started."""
    programs = kernel = changes = 0
    for pid in workers(running):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        programs, kernel = programs + int(fields[11]), kernel + int(fields[12])
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue  # the thread has just ended
            changes += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return Used(programs / _TICKS_S, kernel / _TICKS_S, processes.cpu_s(running.pid), changes)


def profiled(pids: Sequence[int], folder: Path) -> "subprocess.Popen[bytes] | None":
    """Begin a profile of these processes; None without `perf`. It is written when the process given back is ended."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    command = [perf, "record", "-q", "-F", _SAMPLES_S, "-o", str(folder / _PROFILE), "-p", ",".join(map(str, pids))]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shares(folder: Path) -> defaultdict[str, float]:
    """The shares of a profile in percent; empty if none could be taken."""
    command = ["perf", "report", "-i", str(folder / _PROFILE), "--sort", "dso", "--stdio", "-q"]
    report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: defaultdict[str, float] = defaultdict(float)
    for line in report.splitlines():
        share, _, name = line.strip().partition("%")
        if name:
            part = next((word for piece, word in _PARTS.items() if piece in name), "rest")
            found[part] += float(share)
    return found


@dataclass(slots=True)
class Costs:
    """The samples of one route: microseconds for one request, changes of thread for one request, shares in percent."""

    programs: list[float]
    kernel: list[float]
    everything: list[float]
    changes: list[float]
    shares: list[defaultdict[str, float]]


class Bench:
    """A server over the population; it is started anew where a route asks for that."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._load = loading.build()
        self._peer = peers.ours()
        kept = population.populate(self._peer, SIZE, self._load, folder)
        population.copy(kept, folder / self._peer.name)
        self._running = self._peer.start(folder / self._peer.name)

    def stop(self) -> None:
        """End the server."""
        self._running.stop()

    def _ask(self, route: Route, *more: str) -> loading.LoadResult:
        flags = ("get", "-what", route.what, "-method", route.method, *SIZE.flags(), *more)
        return loading.run(self._load, self._running.address, flags, self._seconds)

    def warm(self, route: Route) -> None:
        """Ask once, so that the workers keep the answers in memory; not for a route that measures the first time."""
        if not route.first:
            self._ask(route)

    def sample(self, route: Route, costs: Costs) -> None:
        """Measure a route once."""
        more: tuple[str, ...] = ()
        if route.first:
            self.stop()
            self._running = self._peer.start(self._folder / self._peer.name)
            self._ask(route, *_ONCE, "1")
            more = (*_ONCE, "2")
        processes.wait_quiet([self._running.pid])
        profile = profiled(workers(self._running), self._folder)
        before = used(self._running)
        found = self._ask(route, *more)
        after = used(self._running)
        if profile is not None:
            profile.terminate()
            profile.wait()
            costs.shares.append(shares(self._folder))
        if found.errors:
            raise loading.LoadFailed(f"{route.name}: {found.first_error}")
        costs.programs.append(1e6 * (after.programs_s - before.programs_s) / found.done)
        costs.kernel.append(1e6 * (after.kernel_s - before.kernel_s) / found.done)
        costs.everything.append(1e6 * (after.all_s - before.all_s) / found.done)
        costs.changes.append((after.changes - before.changes) / found.done)


def line(route: Route, costs: Costs) -> str:
    """The line of the printed table for one route."""
    programs, kernel = statistics.median(costs.programs), statistics.median(costs.kernel)
    where = [
        f"{word} {statistics.median(each[word] for each in costs.shares):.0f} %"
        for word in dict.fromkeys((*_PARTS.values(), "rest"))
        if any(costs.shares)
    ]
    times = [programs + kernel, programs, kernel, statistics.median(costs.everything)]
    cells = [
        route.name,
        *(f"{each:.0f}" for each in times),
        f"{statistics.median(costs.changes):.1f}",
        ", ".join(where),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure all routes in turn and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    found = {route: Costs([], [], [], [], []) for route in ROUTES}
    with tempfile.TemporaryDirectory(prefix="tagtrail-costs-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder), seconds)
        try:
            for route in ROUTES:
                bench.warm(route)
            # Routes that start the server anew come last: all others would have to be warmed again after them.
            for first in (False, True):
                for _ in range(ROUNDS):
                    for route, costs in found.items():
                        if route.first is first:
                            bench.sample(route, costs)
        finally:
            bench.stop()
    print("| Route | us of a worker | in programs | in the kernel | all processes | changes of thread | where |")
    print("|---|---|---|---|---|---|---|")
    for route, costs in found.items():
        print(line(route, costs))


if __name__ == "__main__":
    main()
