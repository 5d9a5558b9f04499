"""A stored log of each schema revision, made by the program of that revision, is brought up and answers as it did."""

import gzip
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from domain.features import SESSION_IDS
from eventstore import schema, verify
from eventstore.migrating import migrate
from eventstore.migrations import functions
from eventstore.window import REVISION
from projections.builds.verify import verify as verify_models
from tests.api import Registry, registry_over
from tests.postgres import APP_ROLE, Database, Server, drop_database, empty_database
from tests.upgrade.make_logs import LOGS, PROGRAMS
from tests.upgrade.releases import makers_of_logs
from tests.upgrade.traffic import Client, answers
from tests.waiting import eventually

STORED = [each.schema for each in makers_of_logs()]
EVENTS = (
    "SELECT position, recorded_at, version, partition, schema_version, sets_ref, event_id, stream, key, type, actor,"
    " request_id, prev_ref, ref, content, data::text, state::text, refers_to FROM log.es_event ORDER BY position"
)
FILES = (
    "SELECT oid::integer, relname, relfilenode::integer FROM pg_class"
    " WHERE relnamespace = 'log'::regnamespace AND relkind = 'r'"
)

INDEXES = "SELECT i.indrelid::integer, i.indexrelid::integer FROM pg_index AS i"


@pytest.fixture
def old(postgres_server: Server, revision: str) -> Iterator[Database]:
    """The stored log in a database of its own, as its program left it."""
    made = empty_database(postgres_server)
    dump = gzip.decompress((LOGS / f"{revision}.sql.gz").read_bytes())
    command = [str(PROGRAMS / "psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", made.admin_url]
    restored = subprocess.run(command, input=dump, capture_output=True, check=False)
    assert restored.returncode == 0, restored.stderr.decode()
    yield made
    drop_database(postgres_server, made)


class InProcess:
    """The registry of this process, with the calls of a `requests.Session` that a Client makes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def request(self, method: str, url: str, *, timeout: float, **more: Any) -> Any:
        """The answer."""
        del timeout
        found = self._registry.open(url, method=method, **more)

        class Answer:
            status_code = found.status_code
            text = found.text
            headers = found.headers

            @staticmethod
            def json() -> Any:
                return json.loads(found.data)

        return Answer()

    def get(self, url: str, **more: Any) -> Any:
        """GET."""
        return self.request("GET", url, **more)


def answered(registry: Registry) -> dict[str, dict[str, Any]]:
    """The answers of the present program about the log, by path."""
    return dict(answers(Client("", InProcess(registry))))  # type: ignore[arg-type]  # the two calls that it makes


def asked(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement that a superuser runs."""
    with psycopg.connect(database.admin_url) as connection:
        return connection.execute(statement).fetchall()


def new_ones(database: Database, files: list[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """The indexes of tables that are not among these files of before."""
    stood = {row[0] for row in files}
    return {row for row in asked(database, INDEXES) if row[0] not in stood}


@pytest.mark.parametrize("revision", STORED)
def test_a_stored_log_is_brought_up_and_answers_as_it_did(old: Database, revision: str, tmp_path: Path) -> None:
    """Events stay the same to the byte, the rows beside them and the read models verify, and appends go on."""
    events = asked(old, EVENTS)
    files, indexes = asked(old, FILES), asked(old, INDEXES)
    assert len(events) > 200
    stored = json.loads(gzip.decompress((LOGS / f"{revision}.answers.json.gz").read_bytes()))

    assert migrate(old.owner_url, app_role=APP_ROLE) == REVISION

    assert schema.check(old.app_url) == []
    assert asked(old, EVENTS) == events
    # Every event type is in it. Their first versions come with a new database, later ones with their first event.
    used = {f"{row[9]}.{version}" for row in events for version in (1, row[4])}
    used |= {SESSION_IDS} if revision >= "0010" else set()
    assert {name for (name,) in asked(old, "SELECT name FROM log.es_feature")} == used
    assert verify.verify(old.app_url) == []
    if revision >= "0005":
        # A table that was rewritten has another file, and an index over a large table would be built under a lock.
        # Early revisions did both while there were only small logs.
        assert set(asked(old, INDEXES)) <= set(indexes) | new_ones(old, files)
        now = {row[0]: row for row in asked(old, FILES)}
        assert [row for row in files if row[0] in now and now[row[0]] != row] == []
    with registry_over(old, tmp_path) as registry:
        assert answered(registry) == stored
        registry.project()
        assert answered(registry) == stored
        registry.push("you/app", "after", b"pushed by the present program")
        registry.delete("/v2/you/app/manifests/latest")
        registry.project()
    assert verify.verify(old.app_url) == []
    assert [each.name for each in verify_models(old.app_url) if not each.equal] == []


def append_one(connection: psycopg.Connection, name: str) -> dict[str, Any]:
    """The answer of es_append, called as programs of every revision do, to a command with one event."""
    event = {"stream": f"repo-{name}", "key": name, "partition": 0, "type": "RepositoryCreated", "schema_version": 1}
    event |= {"data": json.dumps({"repository": name}), "ref": "live"}
    command: dict[str, Any] = {"id": name, "now": "2026-01-01T00:00:00+00:00", "actor": "anonymous", "request_id": "r"}
    command |= {"address": "192.0.2.1", "events": [event]}
    answer = connection.execute("SELECT log.es_append(0::smallint, %s::jsonb, false)", (json.dumps([command]),))
    return dict((answer.fetchone() or ())[0][0])


@pytest.mark.parametrize("revision", [each for each in STORED if "0005" <= each < REVISION])
def test_an_append_that_waits_for_the_migration_is_kept_whole(
    old: Database, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in the old function and calls the new forms of others; its idempotency key and address are kept."""
    install = functions.install
    found: list[dict[str, Any]] = []
    with psycopg.connect(old.app_url, autocommit=True) as connection:
        append_one(connection, "before")
        waiting = threading.Thread(target=lambda: found.append(append_one(connection, "meanwhile")))

        def install_while_one_waits(*arguments: Any) -> None:
            install(*arguments)
            waiting.start()
            blocked = f"SELECT cardinality(pg_blocking_pids({connection.info.backend_pid})) > 0"
            eventually(lambda: asked(old, blocked) == [(True,)], what="an append that waits")

        monkeypatch.setattr(functions, "install", install_while_one_waits)
        assert migrate(old.owner_url, app_role=APP_ROLE) == REVISION
        waiting.join(60)
        (told,) = found
        assert set(told) == {"appended"}
        again = append_one(connection, "meanwhile")
        assert again == {"repeated": told["appended"]}
    position = told["appended"]["first"]
    addresses = f"SELECT address FROM log.es_client WHERE {position} BETWEEN first_position AND last_position"
    assert asked(old, addresses) == [("192.0.2.1",)]
