"""Runs a registry of many processes over one database, each by its own command: APIs, relays, projectors."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from eventstore.feed.settings import KafkaSettings
from tests.api import image, sha256
from tests.postgres import Database
from tests.servers import is_ready
from tests.waiting import eventually

START_TIMEOUT_S = 90.0
ANSWER_MAX_S = 60.0


class Fleet:
    """The processes by name; any of them may be killed and started again."""

    def __init__(self, database: Database, kafka: KafkaSettings) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tt-fleet-"))
        self._common = ["--database", database.app_url]
        self._kafka = ["--kafka", kafka.servers, "--kafka-topic-prefix", kafka.prefix]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}
        self.hosts: list[str] = []

    def api(self) -> str:
        """Start an API; answers its HOST:PORT once it is ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        data = str(self.folder / "data")
        self.start(
            f"api{len(self.hosts)}",
            ["api", "--listen", host, "--data", data, "--workers", "1", "--no-access-log", *self._common],
        )
        eventually(lambda: is_ready(host), START_TIMEOUT_S, self.log)
        self.hosts.append(host)
        return host

    def relay(self, name: str) -> None:
        """Start a relay."""
        self.start(name, ["relay", *self._common, *self._kafka])

    def projector(self, name: str, *more: str) -> None:
        """Start a projector."""
        self.start(name, ["projector", *self._common, *self._kafka, *more])

    def start(self, name: str, command: list[str]) -> None:
        """Start a command of tagtrail under a name."""
        self.commands[name] = command
        given = {name: value for name, value in os.environ.items() if not name.startswith("TAGTRAIL_")}
        with (self.folder / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tagtrail", *command],
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End one by SIGKILL, and its own children."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def restart(self, name: str) -> None:
        """Start a process again that was killed."""
        self.start(name, self.commands[name])

    def log(self) -> str:
        """The logs of all processes."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_fleet(database: Database, kafka: KafkaSettings) -> Iterator[Fleet]:
    """Give a fleet during the block; its processes are ended whatever happens."""
    fleet = Fleet(database, kafka)
    try:
        yield fleet
    finally:
        fleet.close()


class Storm:
    """Threads that push to one API and at once read what they pushed from another."""

    def __init__(self, hosts: list[str], writers: int) -> None:
        self._hosts = hosts
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self.failed: list[str] = []
        self.stale: list[str] = []
        self.pushes = 0
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(writers)]

    def __enter__(self) -> "Storm":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def wait_for(self, pushes: int) -> None:
        """Wait until so many more pushes were acknowledged."""
        wanted = self.pushes + pushes
        eventually(lambda: self.pushes >= wanted, 60.0, lambda: (self.pushes, self.failed))

    def _run(self, writer: int) -> None:
        repository = f"storm/app{writer}"
        with requests.Session() as session:
            while not self._stop.is_set():
                number = next(self._numbers)
                write, read = (f"http://{self._hosts[(number + turn) % len(self._hosts)]}" for turn in (0, 1))
                try:
                    self._push(session, write, read, repository, number)
                except requests.RequestException as problem:
                    self.failed.append(repr(problem))

    def _push(self, session: requests.Session, write: str, read: str, repository: str, number: int) -> None:
        config, layer = f'{{"n":{number}}}'.encode(), f"layer {number % 11}".encode()
        for blob in (config, layer):
            answer = session.post(
                f"{write}/v2/{repository}/blobs/uploads/?digest={sha256(blob)}", data=blob, timeout=ANSWER_MAX_S
            )
            self._expect(answer, 201)
        body = image(config, layer)
        tag = f"t{number % 5}"
        put = session.put(
            f"{write}/v2/{repository}/manifests/{tag}",
            data=body,
            headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"},
            timeout=ANSWER_MAX_S,
        )
        self._expect(put, 201)
        self.pushes += 1
        got = session.get(f"{read}/v2/{repository}/manifests/{tag}", timeout=ANSWER_MAX_S)
        listed = session.get(f"{read}/v2/{repository}/tags/list", timeout=ANSWER_MAX_S)
        if got.status_code != 200 or got.content != body:
            self.stale.append(f"{repository}:{tag} {got.status_code} push {number}")
        if listed.status_code != 200 or tag not in listed.json()["tags"]:
            self.stale.append(f"{repository}:{tag} not listed, push {number}")
        if number % 4 == 0:
            self._expect(session.delete(f"{write}/v2/{repository}/manifests/{tag}", timeout=ANSWER_MAX_S), 202)
            if session.get(f"{read}/v2/{repository}/manifests/{tag}", timeout=ANSWER_MAX_S).status_code != 404:
                self.stale.append(f"{repository}:{tag} still there after push {number}")

    def _expect(self, answer: requests.Response, status: int) -> None:
        if answer.status_code != status:
            self.failed.append(
                f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:200]}"
            )
