"""Commands for operators: what they refuse and why, and the files that `events schemas` writes."""

import socket
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Database
from tests.servers import RunningServer
from tests.tagtrail.test_cli import run

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
ABSENT = "postgresql://nobody@127.0.0.1:1/none"


def texts(folder: Path) -> dict[str, str]:
    """The files below a folder, by their paths there."""
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.json")}


def test_events_schemas_writes_those_of_the_docs(tmp_path: Path) -> None:
    done = run("events", "schemas", tmp_path / "new" / "folder")
    assert (done.status, done.err) == (0, "")
    written = texts(tmp_path / "new" / "folder")
    # Those of earlier versions of an event stay in the docs.
    assert written == {path: text for path, text in texts(SCHEMAS).items() if path in written}
    assert len(done.out.splitlines()) == len(written) > 0


@pytest.mark.parametrize("command", ["keeper", "projector"])
def test_metrics_on_an_address_that_is_taken_are_refused(command: str, database: Database, tmp_path: Path) -> None:
    folder = ["--data", tmp_path / "data"] if command == "keeper" else []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(command, "--database", database.app_url, *folder, "--metrics", address)
    assert done.status == 1
    assert f"cannot serve metrics on {address}: Address already in use" in done.err


@pytest.mark.parametrize("command", ["api", "keeper", "projector"])
def test_processes_refuse_a_role_that_could_change_events(command: str, database: Database, tmp_path: Path) -> None:
    own = {"api": ["--listen", "127.0.0.1:1"], "keeper": [], "projector": []}[command]
    folder = [] if command == "projector" else ["--data", tmp_path / "data"]
    done = run(command, "--database", database.owner_url, *own, *folder)
    assert done.status == 1
    assert "not safe to serve with" in done.err
    assert "could change events" in done.err


@pytest.mark.parametrize("command", ["api", "keeper"])
def test_a_folder_that_is_served_is_shared_with_nobody(command: str, server: RunningServer, database: Database) -> None:
    """Two processes that do the same upkeep of a folder, or an API that has no place on the board, would do harm."""
    own = ["--listen", "127.0.0.1:1"] if command == "api" else []
    done = run(command, "--database", database.app_url, "--data", server.data, *own)
    assert done.status == 1
    assert f"{server.data} is served by `tagtrail serve`; stop that first" in done.err


def test_a_folder_that_cannot_be_used_is_named(database: Database, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = run("keeper", "--database", database.app_url, "--data", tmp_path / "data")
    assert done.status == 1
    assert f"the data folder {tmp_path / 'data'} cannot be used" in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["projector", "--database", ABSENT],
        ["events", "tail", "--database", ABSENT],
        ["projections", "status", "--database", ABSENT],
        ["db", "migrate", "--owner-url", ABSENT],
        ["db", "init", "--admin-url", ABSENT],
        ["db", "erase-addresses", "--before", "2026-01-01", "--database", ABSENT],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_database_that_is_not_there_is_a_problem_and_no_trace(command: list[str]) -> None:
    done = run(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")


def test_a_role_that_may_not_migrate_is_told_so(database: Database) -> None:
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("UPDATE log.es_schema SET version_num = '0008'")
    done = run("db", "migrate", "--owner-url", database.app_url)
    assert done.status == 1
    assert done.err.startswith("Error: the migration failed, and changed nothing: permission denied for database")
