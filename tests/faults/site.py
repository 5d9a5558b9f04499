"""Runs `tagtrail serve` over one data folder, kills its processes, and measures how long until it serves again."""

import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tagtrail.server.lock import LOCK_FILE, settings_file
from tests.faults.ledger import Ledger
from tests.servers import RunningServer, children_of, command_of, end, is_alive, is_ready, start
from tests.waiting import PAUSE_S

RECOVERY_TIMEOUT_S = 60.0
# The kernel gives outgoing connections higher ports, so nobody takes this one while the server is away.
PORTS = range(20_000, 32_000)
SUPERVISOR = "supervisor"
VICTIMS = (SUPERVISOR, "postgres", "backend", "api", "worker", "projector", "appender", "watchdog")


@dataclass(frozen=True)
class Recovery:
    """The killed process, and the seconds from the kill, or from the restart, until all was ready and then whole again.

    `slowness` tells by how much other work of the machine stretched these times: the seconds that the server's
    processes ran or waited for a processor, divided by the seconds that they ran.
    """

    victims: tuple[str, ...]
    ready_s: float
    whole_s: float
    restarts: int
    slowness: float

    @property
    def name(self) -> str:
        """The name under which it is counted: the kind of process that was killed, or "two at once"."""
        return self.victims[0] if len(self.victims) == 1 else "two at once"


class Site:
    """A served data folder at one address. After any kill, `recover` has it served again."""

    def __init__(self, folder: Path, ledger: Ledger, *arguments: str) -> None:
        self.data = folder / "data"
        self._ledger = ledger
        self.host = f"127.0.0.1:{_free_port()}"
        self._arguments = arguments
        self._killed: list[tuple[str, int]] = []
        self._restarts = 0
        self._clock = 0.0
        self._settle_at = 0.0
        self._scheduled: dict[int, tuple[int, int]] = {}
        self._whole: dict[str, int] = {}
        self.server = self._start()

    def wait_ready(self) -> None:
        """Wait until it is ready for the first time; the processes of that moment must be there after each fault."""
        self.server.wait_ready()
        self._whole = self._processes()

    def start_again(self) -> None:
        """Start it after its end, and wait until it is ready."""
        self.server = self._start()
        self.server.wait_ready()

    def _start(self) -> RunningServer:
        self._clock = time.monotonic()
        return start(self.data, None, "--listen", self.host, "--no-access-log", *self._arguments)

    def _processes(self) -> dict[str, int]:
        """The number of processes of each kind that is to be there."""
        children = self.server.children()
        return {**dict.fromkeys(children, 1), "worker": len(_workers_of(children))}

    def _pids_of(self, victim: str) -> list[int]:
        if victim == SUPERVISOR:
            return [self.server.process.pid]
        children = self.server.children()
        if victim == "worker":
            return _workers_of(children)
        if victim == "backend":
            return [each for each in children_of(children.get("postgres", 0)) if "tagtrail_app" in command_of(each)]
        return [children[victim]] if victim in children else []

    def kill(self, victim: str, chance: random.Random) -> bool:
        """SIGKILL to one process of this kind; False if there is none this moment. A supervisor is started again."""
        found = self._pids_of(victim)
        if not found:
            return False
        pid, below, now = chance.choice(found), self.server.descendants(), time.monotonic()
        self._scheduled = {each: scheduled(each) for each in (self.server.process.pid, *below)}
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False  # by itself, meanwhile
        self._clock = now
        self._killed.append((victim, pid))
        if victim == SUPERVISOR:
            self._restart(below)
        return True

    def _restart(self, below: list[int]) -> None:
        """Start it again at once, while old processes may still be ending; once it is ready none of them may live."""
        ended = time.monotonic()
        self.server.process.wait()
        self._restarts += 1
        self.server = self._start()
        self._killed += [("left over", pid) for pid in below]
        self._settle_at = ended

    def recover(self) -> Recovery:
        """Wait until it is ready and whole again; start it again if its supervisor has ended."""
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        ready_at: float | None = None
        while True:
            if self.server.process.poll() is not None:
                self._restart([])
                ready_at = None
            if not self._is_ready():
                ready_at = None
            elif ready_at is None:
                ready_at = time.monotonic()
            if ready_at is not None and self._is_whole():
                return self._recovered(ready_at)
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready after {self._killed}:\n{self.server.log.read_text()[-5000:]}")
            time.sleep(PAUSE_S)

    def _recovered(self, ready_at: float) -> Recovery:
        now = time.monotonic()
        self.server.wait_ready()  # reads the new one's settings
        if self._restarts:
            self._ledger.settle(self._settle_at, now)
        victims = tuple(victim for victim, _ in self._killed if victim != "left over")
        found = Recovery(victims, ready_at - self._clock, now - self._clock, self._restarts, self._slowness())
        self._killed, self._restarts = [], 0
        return found

    def _slowness(self) -> float:
        needed = waited = 0
        for pid in (self.server.process.pid, *self.server.descendants()):
            now, before = scheduled(pid), self._scheduled.get(pid, (0, 0))
            # A process that has ended and is not yet replaced has zeros.
            needed += max(0, now[0] - before[0])
            waited += max(0, now[1] - before[1])
        return (needed + waited) / max(needed, 1)

    def _is_whole(self) -> bool:
        return self._processes() == self._whole and not [pid for _, pid in self._killed if is_alive(pid)]

    def _is_ready(self) -> bool:
        """True if this very server says so: what a killed one left may answer in its place for a moment."""
        try:
            mine = (self.data / LOCK_FILE).read_text().strip() == str(self.server.process.pid)
        except OSError:
            return False
        return mine and settings_file(self.data).exists() and is_ready(self.host)


@contextmanager
def site_of(ledger: Ledger, *arguments: str) -> Iterator[Site]:
    """Run a site over a fresh folder during the block; it is ended whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="tt-kills-", dir="/tmp"))
    site = Site(folder, ledger, *arguments)
    try:
        site.wait_ready()
        yield site
    finally:
        end(site.server)
        shutil.rmtree(folder, ignore_errors=True)


def _workers_of(children: dict[str, int]) -> list[int]:
    return [each for each in children_of(children.get("api", 0)) if is_alive(each)]


def scheduled(pid: int) -> tuple[int, int]:
    """The nanoseconds that the first thread of a process ran, and those that it waited for a processor."""
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return 0, 0
    return int(ran), int(waited)


def processes_of(folder: Path) -> list[str]:
    """Every process that runs in the folder or names it in its command line or its variables."""
    wanted = os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if wanted in said or os.fsencode(os.readlink(entry / "cwd")).startswith(wanted):
                    found.append(f"{entry.name}: {command_of(int(entry.name))}")
            except OSError:
                continue  # it has ended meanwhile
    return found


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
