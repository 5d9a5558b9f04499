"""Runs a real `tagtrail serve` for tests on a free port over a folder of its own, and ends it whatever happens."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import requests

from tagtrail.config import Settings
from tagtrail.server.lock import LOCK_FILE, settings_file
from tests.waiting import eventually

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0


@dataclass
class RunningServer:
    """A `tagtrail serve` that runs: its supervisor's process, its settings, its data folder and its log."""

    data: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    settings: Settings = field(init=False)

    @property
    def host(self) -> str:
        """Address and port, as clients name the registry."""
        return self.settings.listen

    @property
    def url(self) -> str:
        """The root of its addresses."""
        return f"http://{self.host}"

    @property
    def database_url(self) -> str:
        """The URL of its database for the application's role."""
        return self.settings.database_url

    def wait_ready(self) -> None:
        """Wait until it says that it is ready; raises with its log if it does not."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                # A killed server leaves its settings in the folder; they count only once this server has the lock.
                if (self.data / LOCK_FILE).read_text().strip() != str(self.process.pid):
                    time.sleep(0.05)
                    continue
                self.settings = Settings.from_json(settings_file(self.data).read_text())
            except OSError:
                time.sleep(0.05)
                continue
            if is_ready(self.host):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def metrics(self) -> dict[str, float]:
        """The values at /metrics now, by name and labels."""
        return scrape(self.host)

    def children(self) -> dict[str, int]:
        """The pid of each child process of the supervisor by name: postgres, api, projector, watchdog."""
        names = {
            "server.api": "api",
            "server.projector": "projector",
            "server.keeper": "keeper",
            "server.appender": "appender",
            "server.relay": "relay",
            "server.watchdog": "watchdog",
        }
        found: dict[str, int] = {}
        for pid in children_of(self.process.pid):
            command = command_of(pid)
            name = next((name for module, name in names.items() if f"tagtrail.{module}" in command), None)
            if name is None and "postgres" in command:
                name = "postgres"
            if name is not None:
                found[name] = pid
        return found

    def workers(self) -> list[int]:
        """The pids of the API's workers."""
        return children_of(self.children()["api"])

    def descendants(self) -> list[int]:
        """The pids of all processes below the supervisor."""
        waiting, found = [self.process.pid], []
        while waiting:
            below = children_of(waiting.pop())
            found += below
            waiting += below
        return found

    def stop(self) -> int:
        """End it by SIGTERM and answer its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


def is_ready(host: str) -> bool:
    """True if /readyz is answered 200; False also where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{host}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False
    except OSError:
        return False


def scrape(host: str) -> dict[str, float]:
    """The values of a /metrics endpoint by name and labels."""
    with urllib.request.urlopen(f"http://{host}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


def wait_level(host: str, timeout_s: float = 30.0) -> dict[str, float]:
    """Wait until relay and read models are level with the history; answers what /metrics says then.

    The relay looks for sessions every few seconds only.
    """

    def level() -> dict[str, float] | None:
        found = scrape(host)
        behind = {name: value for name, value in found.items() if "_lag_events" in name and '"uploads"' not in name}
        return None if any(behind.values()) else found

    found = eventually(level, timeout_s, lambda: scrape(host))
    assert found is not None
    return found


def warm_up(host: str) -> None:
    """Append the events of an upload session and wait until all is level: relay and topics are there from then on.

    No read model folds such events, so none of them has come from the store where Kafka was not there yet.
    """
    with requests.Session() as client:
        opened = client.post(f"http://{host}/v2/warm/up/blobs/uploads/", timeout=10)
        session = f"http://{host}{opened.headers['Location']}"
        assert client.patch(session, b"x", timeout=10).status_code == 202
        assert client.delete(session, timeout=10).status_code == 204
    wait_level(host)


def assert_fed_by_kafka(host: str) -> None:
    """Check that no event reached a read model from the store, which holds in a run without faults."""
    found = wait_level(host)
    assert found['tagtrail_feed_events_total{source="kafka"}'] > 0
    assert found['tagtrail_feed_events_total{source="store"}'] == 0
    assert found["tagtrail_feed_holes_total"] == 0
    assert found['tagtrail_projection_parked{model="tags"}'] == 0


def children_of(pid: int) -> list[int]:
    """The pids of its child processes."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        texts = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return []
    return [int(each) for text in texts for each in text.split()]


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """True if the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(data: Path, environment: Mapping[str, str] | None = None, *arguments: str) -> RunningServer:
    """Start a supervisor on a free port; does not wait for it.

    It has an appender whatever its number of workers, unless the environment says otherwise.
    """
    log = data.parent / f"{data.name}.log"
    given = {name: value for name, value in os.environ.items() if not name.startswith("TAGTRAIL_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tagtrail", "serve", "--listen", "127.0.0.1:0", "--data", str(data), *arguments],
            env=given | {"TAGTRAIL_APPENDER": "true"} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=data.parent,
        )
    return RunningServer(data, process, log)


def end(server: RunningServer) -> None:
    """End it if it runs, by SIGKILL if nothing else helps."""
    if server.process.poll() is None:
        server.process.terminate()
        try:
            server.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


@contextmanager
def started(data: Path, environment: Mapping[str, str] | None = None, *arguments: str) -> Iterator[RunningServer]:
    """Start a server over this folder, which may not be ready yet when the block begins; it is ended afterwards."""
    server = start(data, environment, *arguments)
    try:
        yield server
    finally:
        end(server)


@contextmanager
def serving(environment: Mapping[str, str] | None = None, *arguments: str) -> Iterator[RunningServer]:
    """Run a server over a fresh folder, ready when the block begins; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tt-serve-"))
    try:
        with started(folder / "data", environment, *arguments) as server:
            server.wait_ready()
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def jittering(server: RunningServer, seed: int) -> Iterator[None]:
    """Stop and continue the server's projector at random moments during the block."""
    ended = threading.Event()
    chance = random.Random(seed)
    projector = server.children()["projector"]

    def jitter() -> None:
        while not ended.wait(chance.uniform(0.01, 0.3)):
            os.kill(projector, signal.SIGSTOP)
            ended.wait(chance.uniform(0.01, 0.5))
            os.kill(projector, signal.SIGCONT)

    thread = threading.Thread(target=jitter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def a_relay(database_url: str) -> Iterator[None]:
    """Register a relay during the block that looks alive, though no process of it runs."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO feed.process (id, kind, host, pid, shapes, event_types, started_at, seen_at)"
            " VALUES ('r', 'relay', 'h', 1, '{}', '{}', now(), now())"
        )
        try:
            yield
        finally:
            connection.execute("DELETE FROM feed.process WHERE id = 'r'")
