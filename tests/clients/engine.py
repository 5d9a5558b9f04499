"""Runs a Docker engine of the tests' own; its data, sockets and containerd stand in one folder that goes at the end."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import images
from .programs import Program, find, missing, private_environment

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
FOLDER_PREFIX = "ttd-"
BASE_IMAGE = "tagtrail-test-base:1"


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: its folder, its address and its command line."""

    folder: Path
    address: str
    docker: Program

    @property
    def containerd_socket(self) -> Path:
        """The socket of the engine's own containerd."""
        return self.folder / "exec" / "containerd" / "containerd.sock"

    def build(self, folder: Path, dockerfile: str, reference: str) -> str:
        """Build an image with the engine's own builder (no BuildKit plugin needed); answers its id."""
        (folder / "Dockerfile").write_text(dockerfile)
        self.docker("build", "--network=none", "-q", "-t", reference, folder)
        return self.image_id(reference)

    def image_id(self, reference: str) -> str:
        """The id of a local image: the digest of its config, which names the digests of all layers' content."""
        return self.docker("image", "inspect", "--format={{.Id}}", reference).text

    def has(self, reference: str) -> bool:
        """True if the engine holds an image under that reference."""
        return self.docker.attempt("image", "inspect", reference).code == 0


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Start an engine with a base image in it; stop it by its pid, unmount what it left, remove its folder."""
    dockerd, docker, busybox = find("dockerd"), find("docker"), find("busybox")
    if dockerd is None or docker is None or busybox is None:
        missing("docker.io and busybox-static are needed; run as root: python3 scripts/tools.py install")
    if os.geteuid() != 0:
        missing("a Docker engine can only be started by root")
    _remove_leftovers()
    folder, lock = _make_locked_folder()
    process: subprocess.Popen[bytes] | None = None
    try:
        process = _start(dockerd, folder)
        address = f"unix://{folder}/s"
        home = folder / "home"
        environment = {
            **private_environment(home),
            "DOCKER_HOST": address,
            # The classic builder, because that of BuildKit is a plugin that Debian lacks.
            "DOCKER_BUILDKIT": "0",
            "BUILDKIT_PROGRESS": "plain",
        }
        engine = Engine(folder, address, Program(docker, environment))
        _wait_until_ready(engine, process)
        images.write_root(folder / "root", busybox)
        engine.docker("import", "-", BASE_IMAGE, stdin=images.tar_tree(folder / "root"))
        yield engine
    finally:
        if process is not None:
            _stop(process)
        _remove(folder)
        lock.close()


def _make_locked_folder() -> tuple[Path, IO[str]]:
    """Make the engine's folder and hold its lock, which ends with this process however it ends."""
    # A Unix socket's path must fit 107 bytes, so the folder is short whatever the test's own folder is.
    new = Path(tempfile.mkdtemp(prefix="new-", dir="/tmp"))
    lock = (new / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    # It gets its name only once it is locked, because until then it would look like a leftover.
    return new.rename(Path("/tmp") / (FOLDER_PREFIX + new.name.removeprefix("new-"))), lock


def _remove(folder: Path) -> None:
    unmount_below(folder)
    shutil.rmtree(folder)


def _remove_leftovers() -> None:
    """Remove folders of tests that were killed: their lock can be taken because nobody is left who holds it."""
    for folder in Path("/tmp").glob(f"{FOLDER_PREFIX}*"):
        if not (folder / "lock").exists():
            continue
        with (folder / "lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _remove(folder)


def _start(dockerd: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [
        str(dockerd),
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--host=unix://{folder}/s",
        f"--pidfile={folder}/pid",
        "--iptables=false",
        "--bridge=none",
    ]
    setpriv = shutil.which("setpriv")
    if setpriv:
        # An engine must not outlive tests that are killed: the kernel ends it with them.
        command = [setpriv, "--pdeathsig", "TERM", *command]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait_until_ready(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while engine.docker.attempt("info").code != 0:
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            log = (engine.folder / "log").read_text(errors="replace")[-3000:]
            missing(f"the Docker engine {'ended' if ended else 'did not answer'} at its start:\n{log}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        # The engine's session of processes holds its containerd too.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS_MAX)


def unmount_below(folder: Path) -> None:
    """Unmount whatever is still mounted below a folder, the deepest first."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in mounted if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", point], check=False)
