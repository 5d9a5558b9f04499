"""Finds, starts and ends the registries that are measured."""

import hashlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from scripts.tools import find_tool
from tests import servers

OURS = "tagtrail"
WORKERS = 2
ZOT_VARIABLE = "BENCH_ZOT"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
_ROOT = Path(__file__).parent.parent.parent


class NotDurable(Exception):
    """Our database does not flush what it acknowledges: its figures would be worth nothing."""


@dataclass(frozen=True, slots=True)
class Running:
    """A registry that answers. `process` is the root of all its processes."""

    name: str
    address: str
    process: "subprocess.Popen[bytes]"
    database_url: str = ""

    @property
    def pid(self) -> int:
        """The pid of the root of its processes."""
        return self.process.pid

    def stop(self) -> None:
        """End it, and kill it if it has not ended in time."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Peer:
    """A registry that can be started over a folder; `version` tells when a stored population must be made anew."""

    name: str
    version: str
    start: Callable[[Path], Running]


def ours() -> Peer:
    """Our registry, started by `tagtrail serve` with its embedded Postgres, which flushes every commit."""
    schema = hashlib.sha256(b"".join(each.read_bytes() for each in sorted((_ROOT / "eventstore").rglob("*.sql"))))

    def start(folder: Path) -> Running:
        server = servers.start(folder / "data", None, "--workers", str(WORKERS))
        try:
            server.wait_ready()
        except RuntimeError:
            server.process.kill()
            raise
        return Running(OURS, server.host, server.process, server.database_url)

    return Peer(OURS, schema.hexdigest()[:12], start)


def durability(database_url: str) -> dict[str, str]:
    """The settings of the running database that make it durable. Raises NotDurable unless all are on."""
    with psycopg.connect(database_url) as connection:
        rows = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in DURABLE]
    found = {name: str(row[0]) for name, row in zip(DURABLE, rows, strict=True) if row is not None}
    if set(found.values()) != {"on"}:
        raise NotDurable(", ".join(f"{name} = {value}" for name, value in found.items()))
    return found


def distribution(name: str, program: Path) -> Peer:
    """docker-registry 2.8 and distribution v3, which take the same configuration."""

    def start(folder: Path) -> Running:
        address = free_address()
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(folder / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": address},
        }
        # The registry reads YAML, and JSON is YAML.
        return launch(name, folder, address, config, [str(program), "serve"], {"OTEL_TRACES_EXPORTER": "none"})

    return Peer(name, version_of(program), start)


def zot(program: Path) -> Peer:
    """A zot with its defaults, so without flushes to the disk, except that it takes Docker's manifests too."""

    def start(folder: Path) -> Running:
        address = free_address()
        host, _, port = address.rpartition(":")
        config: dict[str, object] = {
            "distSpecVersion": "1.1.1",
            "storage": {"rootDirectory": str(folder / "data")},
            "http": {"address": host, "port": port, "compat": ["docker2s2"]},
            "log": {"level": "error"},
        }
        return launch("zot", folder, address, config, [str(program), "serve"], {})

    # `zot --version` names the version of the specification first, so the program's checksum stands for its version.
    return Peer("zot", hashlib.sha256(program.read_bytes()).hexdigest()[:12], start)


def found_peers() -> list[Peer]:
    """Ours, then those registries that are installed here."""
    found = [ours()]
    if program := find_tool("docker-registry"):
        found.append(distribution("docker-registry", program))
    if program := find_tool("registry"):
        found.append(distribution("distribution", program))
    if given := os.environ.get(ZOT_VARIABLE):
        found.append(zot(Path(given)))
    return found


def version_of(program: Path) -> str:
    """The version that `PROGRAM --version` prints, or "unknown"."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v?\d+\.\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def launch(
    name: str, folder: Path, address: str, config: Mapping[str, object], command: list[str], environment: dict[str, str]
) -> Running:
    """Start a program with a configuration file and wait until it answers. Raises RuntimeError with its log."""
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    file.write_text(json.dumps(config))
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, str(file)], env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    running = Running(name, address, process)
    try:
        wait_answering(running)
    except RuntimeError as problem:
        running.stop()
        raise RuntimeError(f"{problem}\n{log.read_text()}") from None
    return running


def wait_answering(running: Running) -> None:
    """Wait until something answers at its address. Raises RuntimeError if it ends or never does."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{running.address}/v2/", timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{running.name} did not start")


def free_address() -> str:
    """An address HOST:PORT of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
