"""Runs servers of several releases over one database and one data folder, and clients that accept no failed request."""

import itertools
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.postgres import Database
from tests.upgrade.releases import Program
from tests.upgrade.traffic import MANIFEST, Client
from tests.waiting import eventually

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
THREADS = 4


class Site:
    """The processes, each started by a program's own command."""

    def __init__(self, database: Database) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tt-rolling-"))
        self._database = database
        self._running: list[subprocess.Popen[bytes]] = []

    def api(self, program: Program) -> "Server":
        """An API of this program with its projector, ready to serve."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        data = ("--data", str(self.folder / "data"), "--workers", "1", "--no-access-log")
        processes = [self._start(program, "api", "--listen", host, *data), self._start(program, "projector")]
        eventually(lambda: status(host, "/readyz")[0] == 200, START_TIMEOUT_S, self.log)
        return Server(host, processes)

    def refused(self, program: Program) -> str:
        """The words with which an API of this program refuses to start."""
        process = self._start(program, "api", "--listen", "127.0.0.1:1", "--data", str(self.folder / "data"))
        assert process.wait(START_TIMEOUT_S) == 1
        return self.log().splitlines()[-1]

    def migrate(self, program: Program) -> str:
        """The output of this program's `tagtrail db migrate`."""
        done = program.run("db", "migrate", TAGTRAIL_OWNER_URL=self._database.owner_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self) -> str:
        """The output of all processes."""
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        """End all processes."""
        for each in self._running:
            end(each)

    def close(self) -> None:
        """End all processes and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, program: Program, *command: str) -> "subprocess.Popen[bytes]":
        log = self.folder / "log"
        process = program.start(*command, log=log, TAGTRAIL_DATABASE=self._database.app_url)
        self._running.append(process)
        return process


class Server:
    """An API and its projector."""

    def __init__(self, host: str, processes: "list[subprocess.Popen[bytes]]") -> None:
        self.host = host
        self._processes = processes

    def stop(self) -> None:
        """End both as an operator does."""
        for each in self._processes:
            end(each)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process by SIGTERM, or by SIGKILL if that is not enough."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def status(host: str, path: str) -> tuple[int, str]:
    """Status and body of a GET; 0 where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{host}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()
    except OSError as problem:
        return 0, str(problem)


class Storm:
    """Threads that push, pull and delete through the servers that there are, and stop at an unexpected answer.

    A push through one server is read back through another one at once.
    """

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.problems: list[str] = []
        self.rounds: dict[str, int] = {}
        self._lock = threading.Lock()
        self._using: list[tuple[str, ...]] = [()] * THREADS
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]

    @contextmanager
    def blowing(self, *servers: Server) -> Iterator["Storm"]:
        """Start through these servers, and stop at the end."""
        self.hosts = [each.host for each in servers]
        for each in self._threads:
            each.start()
        try:
            yield self
        finally:
            self._stop.set()
            for each in self._threads:
                each.join()
        assert self.problems == []

    def through(self, *servers: Server) -> None:
        """Use these servers from now on; returns when the requests to others have ended."""
        self.hosts = [each.host for each in servers]
        eventually(lambda: all(set(used) <= set(self.hosts) for used in self._using), 60, lambda: self._using)

    def wait(self, rounds: int = 10) -> None:
        """Wait until each of the servers had its part in some more rounds; raises what went wrong."""
        with self._lock:
            begun = dict(self.rounds)
        hosts = tuple(self.hosts)

        def done() -> bool:
            return bool(self.problems) or all(self.rounds.get(each, 0) >= begun.get(each, 0) + rounds for each in hosts)

        eventually(done, 120, lambda: (begun, self.rounds))
        assert self.problems == []

    def _run(self, number: int) -> None:
        with ExitStack() as stack:
            self._push_and_pull(number, stack)

    def _push_and_pull(self, number: int, stack: ExitStack) -> None:
        chance = random.Random(number)
        clients: dict[str, Client] = {}
        repository = f"storm/app{number}"
        for count in itertools.count():
            if self._stop.is_set() or self.problems:
                return
            hosts = tuple(self.hosts)
            used = self._using[number] = (chance.choice(hosts), chance.choice(hosts))
            if not set(used) <= set(self.hosts):
                continue
            for host in used:
                if host not in clients:
                    clients[host] = stack.enter_context(closing(Client(f"http://{host}")))
            try:
                self._round(clients[used[0]], clients[used[1]], repository, count)
            except (AssertionError, OSError, ValueError) as problem:
                self.problems.append(f"{used}: {problem!r}")
                return
            finally:
                self._using[number] = ()
            with self._lock:
                for host in set(used):
                    self.rounds[host] = self.rounds.get(host, 0) + 1

    @staticmethod
    def _round(writer: Client, reader: Client, repository: str, count: int) -> None:
        tag = f"t{count % 5}"
        body = writer.push(repository, tag, f"{repository} {count}")
        path = f"/v2/{repository}/manifests/{tag}"
        assert reader.ask("GET", path, 200, headers={"Accept": MANIFEST}).content == body
        assert tag in reader.ask("GET", f"/v2/{repository}/tags/list", 200).json()["tags"]
        if count % 4 == 3:
            writer.ask("DELETE", path, 202)
            reader.ask("GET", path, 404, headers={"Accept": MANIFEST})
