"""The embedded Postgres runs as root and as an ordinary user, on long and odd paths, and after crashes."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tagtrail.server import embedded
from tagtrail.server.embedded import ADMIN, EmbeddedPostgres, EmbeddedPostgresFailed

CONNECTIONS = 20
WAIT_MAX_S = 60.0
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder with a short path (a socket's path is bounded)."""
    made = Path(tempfile.mkdtemp(prefix="tt-pg-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@contextmanager
def running(data: Path) -> Iterator["tuple[EmbeddedPostgres, subprocess.Popen[bytes]]"]:
    """Run an embedded Postgres over this folder during the block, ready when the block begins."""
    postgres = EmbeddedPostgres(data, CONNECTIONS)
    postgres.prepare()
    process = postgres.start()
    try:
        postgres.wait_ready(process)
        yield postgres, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(WAIT_MAX_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def ask(postgres: EmbeddedPostgres, question: str) -> str:
    """The one answer to a question, asked as the administrator."""
    with psycopg.connect(postgres.url(ADMIN, "postgres")) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def owner_of(pid: int) -> int:
    """The user that a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("jit", "off"),
        ("max_connections", str(CONNECTIONS)),
        ("server_encoding", "UTF8"),
        ("lc_messages", "C"),
    ],
)
def test_it_runs_durable_and_without_a_network(shared: EmbeddedPostgres, name: str, value: str) -> None:
    assert ask(shared, f"SELECT current_setting('{name}')") == value


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """One server for the tests that only look."""
    made = Path(tempfile.mkdtemp(prefix="tt-pg-", dir="/tmp"))
    with running(made) as (postgres, _):
        yield postgres
    shutil.rmtree(made)


@root_only
def test_root_runs_it_as_a_user_of_its_own_in_a_folder_that_others_cannot_enter(folder: Path) -> None:
    outer = folder / "private"
    data = outer / "data"
    data.mkdir(parents=True)
    for each in (outer, data):
        each.chmod(0o700)
    (outer / "letter").write_text("dear diary")
    with running(data) as (postgres, process):
        assert owner_of(process.pid) == pwd.getpwnam(embedded.SYSTEM_USER).pw_uid
        assert ask(postgres, "SELECT 1") == "1"
        for each in (outer, data, data / "postgres"):
            assert each.stat().st_mode & 0o007 == 0, each
        stranger = pwd.getpwnam("nobody")
        for path in (outer / "letter", data, data / "postgres"):
            assert not as_user(stranger, path.exists)
        his = pwd.getpwnam(embedded.SYSTEM_USER)
        assert not as_user(his, lambda: bool(os.listdir(outer)))
        assert not as_user(his, lambda: bool(os.listdir(data)))


@root_only
def test_an_ordinary_user_runs_it_as_himself_and_no_right_changes(folder: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    os.chown(folder, daemon.pw_uid, daemon.pw_gid)
    data = folder / "data"
    programs = str(embedded._programs())

    def serve() -> bool:
        data.mkdir(mode=0o700)
        with running(data) as (postgres, process):
            return owner_of(process.pid) == daemon.pw_uid and ask(postgres, "SELECT 1") == "1"

    if not as_user(daemon, lambda: os.access(programs, os.X_OK)):
        pytest.skip(f"an ordinary user cannot reach {programs}")
    assert as_user(daemon, serve)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in (folder, data):
        assert "system.posix_acl_access" not in os.listxattr(path)


def as_user(user: pwd.struct_passwd, question: Callable[[], bool]) -> bool:
    """The answer of a forked child that has become the user; an OSError counts as no."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            status = 0 if question() else 1
        except PermissionError:
            status = 1
        except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
            traceback.print_exc()
            status = 2
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 0


@pytest.mark.parametrize("name", ["d" * 90, "with, a 'comma'", "per%20cent", "ümlaut"])
def test_a_path_that_is_too_long_or_odd_for_a_socket_does_no_harm(folder: Path, name: str) -> None:
    data = folder / name
    data.mkdir(mode=0o700)
    with running(data) as (postgres, _):
        assert ask(postgres, "SELECT 1") == "1"
        assert postgres._socket_folder.stat().st_mode & 0o077 == 0
    shutil.rmtree(postgres._socket_folder, ignore_errors=postgres._socket_folder == data / "postgres")


def test_a_socket_folder_that_somebody_else_made_is_refused(folder: Path) -> None:
    data = folder / ("d" * 90)
    data.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(data, CONNECTIONS)
    postgres._socket_folder.mkdir(mode=0o777)
    postgres._socket_folder.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresFailed, match="is not a folder of Postgres's user alone"):
            postgres.prepare()
    finally:
        postgres._socket_folder.rmdir()


def test_a_cluster_whose_making_was_broken_off_is_made_anew(folder: Path) -> None:
    left = folder / "postgres.new"
    left.mkdir()
    (left / "PG_VERSION").write_text("18\n")
    with running(folder) as (postgres, _):
        assert ask(postgres, "SELECT 1") == "1"
    assert not left.exists()


def test_a_cluster_of_another_version_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresFailed, match="was made by Postgres 12"):
        EmbeddedPostgres(folder, CONNECTIONS).prepare()
    assert [path.name for path in (folder / "postgres").iterdir()] == ["PG_VERSION"]


def test_a_folder_that_is_no_cluster_is_refused(folder: Path) -> None:
    (folder / "postgres").mkdir()
    with pytest.raises(EmbeddedPostgresFailed, match="not a database that tagtrail made"):
        EmbeddedPostgres(folder, CONNECTIONS).prepare()


def test_after_a_kill_it_recovers_what_was_committed(folder: Path) -> None:
    with running(folder) as (postgres, process):
        with psycopg.connect(postgres.url(ADMIN, "postgres")) as connection:
            connection.execute("CREATE TABLE kept (n integer)")
            connection.execute("INSERT INTO kept VALUES (7)")
        process.kill()
        process.wait(WAIT_MAX_S)
    with running(folder) as (postgres, _):
        assert ask(postgres, "SELECT n FROM kept") == "7"


def test_a_server_that_still_runs_on_the_data_is_ended_first(folder: Path) -> None:
    with running(folder) as (_, orphan), running(folder) as (postgres, process):
        assert orphan.wait(WAIT_MAX_S) == 0
        assert ask(postgres, "SELECT 1") == "1"
        assert process.poll() is None


def test_a_pid_file_that_names_some_other_process_is_no_obstacle(folder: Path) -> None:
    with running(folder):
        pass
    text = f"{os.getpid()}\n{folder / 'postgres'}\n1790000000\n5432\n{folder / 'postgres'}\n\n  1  1\nready\n"
    (folder / "postgres" / "postmaster.pid").write_text(text)
    (folder / "postgres" / ".s.PGSQL.5432.lock").write_text(text)
    with running(folder) as (postgres, _):
        assert ask(postgres, "SELECT 1") == "1"
