"""The append function on a real Postgres: each rule with the failure that it prevents."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore.store import Store
from eventstore.types import (
    ENSURE,
    NONE_YET,
    Appended,
    AppendRejected,
    Cause,
    Condition,
    Content,
    Exact,
    Expand,
    Mode,
    RefIs,
    RefIsNot,
    Refused,
    StoreUnavailable,
    Unreferenced,
)
from tests.eventstore.making import command, event
from tests.postgres import Database

CAUSE = Cause("tester", "request-1")
ENOUGH = 800
PATIENCE_S = 180.0


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store over a fresh database."""
    made = Store(database.app_url, pool_size=4)
    yield made
    made.close()


def positions(store: Store) -> list[int]:
    """Every position of the log, in the order in which it is read."""
    return [each.position for each in store.read_log(0, 100_000)]


def test_a_command_is_appended_whole(store: Store) -> None:
    """Positions begin at 1, each stream has its versions, data stay as given, and actor and request stand beside."""
    outcome = store.append(command(event("a", data='{"a":1}', ref="r", state='{"n":1}'), event("b"), event("a")))
    assert isinstance(outcome, Appended)
    assert outcome.positions == (1, 2, 3)
    first, _, third = store.read_log(0, 10)
    assert (first.stream, first.version, first.data, first.actor) == ("a", 1, '{"a":1}', "tester")
    assert (third.version, third.prev_ref) == (2, "r")
    found = store.stream_state("a")
    assert (found.version, found.ref, found.state) == (2, "r", '{"n":1}')


@pytest.mark.parametrize("mode", [NONE_YET, Exact(0), Exact(2)])
def test_a_version_that_does_not_fit_is_refused(store: Store, mode: Mode) -> None:
    """With the stream as it stands; nothing of the command is appended."""
    store.append(command(event("a", ref="r")))
    outcome = store.append(command(event("b"), event("a", mode)))
    assert isinstance(outcome, Refused)
    assert [(each.stream, each.version, each.ref) for each in outcome.conflicts] == [("a", 1, "r")]
    assert positions(store) == [1]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (RefIs((("a", "live"),)), True),
        (RefIs((("a", None),)), False),
        (RefIs((("b", None),)), True),
        (RefIs((("b", "live"), ("a", "live"))), True),
        (RefIs((("b", "live"), ("a", "x"))), False),
        (RefIsNot("a", None), True),
        (RefIsNot("a", "live"), False),
        (RefIsNot("b", None), False),
        (Unreferenced("a"), True),
        (Unreferenced("target"), False),
    ],
)
def test_a_condition_that_fails_refuses_the_command_and_is_named(
    store: Store, condition: Condition, holds: bool
) -> None:
    """Each is judged under the lock; those that fail are named by their place."""
    store.append(command(event("a", ref="live", refers_to=("target",))))
    outcome = store.append(command(event("c"), needs=(RefIs((("nothing", None),)), condition)))
    if holds:
        assert isinstance(outcome, Appended)
    else:
        assert isinstance(outcome, Refused)
        assert outcome.failed_conditions == (1,)
        assert positions(store) == [1]


def test_ensure_drops_the_event_and_not_the_command(store: Store) -> None:
    """Once the stream is dead again the event is appended."""
    for _ in range(3):
        store.append(command(event("a", ENSURE, ref="live"), event("b")))
    store.append(command(event("a", ref=None)))
    store.append(command(event("a", ENSURE, ref="live")))
    assert [each.stream for each in store.read_log(0, 10)] == ["a", "b", "b", "b", "a", "a"]


def test_expand_reaches_every_stream_with_the_ref(store: Store) -> None:
    """Only streams with the prefix get the event; the rest of a stream's name is written into its data."""
    for name in ("tag-a:1", "tag-a:2", "other", "tag-a:3"):
        store.append(command(event(name, ref="m")))
    store.append(command(event("tag-a:2", ref="elsewhere")))
    before = store.head()
    store.append(command(Expand("m", "tag-a:", "key", "Gone", 1, '{"r":"a"}', "tag")))
    found = [(each.stream, each.data, each.prev_ref) for each in store.read_log(before, 10)]
    assert found == [("tag-a:1", '{"r":"a","tag":"1"}', "m"), ("tag-a:3", '{"r":"a","tag":"3"}', "m")]
    assert store.stream_state("tag-a:1").ref is None


def test_the_same_id_answers_the_same(store: Store) -> None:
    """The first command counts, whatever the second one says."""
    first = store.append(command(event("a"), given_id="once"))
    again = store.append(command(event("a"), event("b"), given_id="once"))
    assert isinstance(first, Appended)
    assert isinstance(again, Appended)
    assert (again.repeated, again.positions) == (True, first.positions)
    assert positions(store) == [1]


def test_content_must_be_there(store: Store) -> None:
    """A command that names missing content is refused; stored twice is stored once; named stays."""
    digest = "sha256:" + "a" * 64
    outcome = store.append(command(event("a", content=digest)))
    assert isinstance(outcome, Refused)
    assert outcome.missing_content == (digest,)
    for body in (b"bytes", b"other"):
        store.put_content(Content(digest, body, '{"f":1}'))
    store.put_content(Content("orphan", b"", "{}"))
    assert isinstance(store.append(command(event("a", content=digest))), Appended)
    found = store.get_content(digest)
    assert found is not None
    assert found.body == b"bytes"
    assert store.get_content("orphan") is not None


def test_times_never_go_back(store: Store) -> None:
    """A clock that goes back takes the time of the event before; a clock that is far ahead is refused."""
    now = datetime.now(UTC)
    for offset in (0, -3600, 1, -5):
        store.append(command(event("a"), now=now + timedelta(seconds=offset)))
    times = [each.recorded_at for each in store.read_log(0, 10)]
    assert times == [now, now, now + timedelta(seconds=1), now + timedelta(seconds=1)]
    with pytest.raises(AppendRejected):
        store.append(command(event("a"), now=now + timedelta(minutes=10)))


def test_a_bad_command_fails_alone(store: Store) -> None:
    """One that the function itself rejects does not spoil those that queued with it."""
    now = datetime.now(UTC)

    def append(number: int) -> bool:
        ahead = timedelta(minutes=10) if number % 5 == 0 else timedelta()
        try:
            return isinstance(store.append(command(event(f"s{number}"), now=now + ahead)), Appended)
        except AppendRejected:
            return False

    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(append, range(40)))
    assert done == [number % 5 != 0 for number in range(40)]
    assert positions(store) == list(range(1, 33))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_other_isolation_is_refused(database: Database, level: str) -> None:
    """Its snapshot would be older than the lock."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        connection.execute(f"SET default_transaction_isolation = '{level}'")
        with pytest.raises(psycopg.errors.DatabaseError, match="READ COMMITTED"):
            connection.execute("SELECT log.es_append(0::smallint, '[]'::jsonb, false)")


@pytest.mark.parametrize("table", ["es_event", "es_content"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_log_cannot_be_changed(store: Store, database: Database, table: str, change: str) -> None:
    """The application lacks the right, triggers refuse the owner, also as a replica."""
    store.put_content(Content("d", b"", "{}"))
    store.append(command(event("a", content="d")))
    column = "actor" if table == "es_event" else "digest"
    statement = change.format(f"log.{table}", column, column)
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(database.app_url, autocommit=True) as connection, refused:
        connection.execute(statement)
    for url, role in ((database.owner_url, "origin"), (database.admin_url, "replica")):
        with psycopg.connect(url, autocommit=True) as connection:
            if role == "replica":
                connection.execute("SET session_replication_role = replica")
            with pytest.raises(psycopg.DatabaseError, match=r"append-only|named by an event") as guarded:
                connection.execute(statement)
            assert guarded.value.sqlstate == "TT003"
    assert positions(store) == [1]


def test_of_racing_exact_versions_one_wins(store: Store) -> None:
    """In each of ten rounds one of eight commands is appended."""
    for version in range(10):
        commands = [command(event("a", Exact(version))) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(store.append, commands))
        assert sum(isinstance(each, Appended) for each in outcomes) == 1


def test_every_move_names_the_one_before(store: Store) -> None:
    """No move is left out, even with 16 writers at once."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.append(command(event("tag", ref=f"m{number}"))), range(160)))
    moves = store.read_stream("tag", limit=1000)
    refs = [each.prev_ref for each in moves]
    assert refs[0] is None
    assert len(set(refs)) == 160
    assert store.stream_state("tag").version == 160


def test_64_first_pushes_bring_one_creation(store: Store) -> None:
    """All 64 commands are appended, each with an event of its own."""
    with ThreadPoolExecutor(64) as pool:
        outcomes = list(
            pool.map(lambda n: store.append(command(event("repo", ENSURE, ref="live"), event(f"t{n}"))), range(64))
        )
    assert all(isinstance(each, Appended) for each in outcomes)
    assert len(store.read_stream("repo")) == 1


WRITER = """
import random, secrets, sys
from datetime import UTC, datetime
from eventstore.store import Store
from eventstore.types import *
store = Store(sys.argv[1], pool_size=1)
chance = random.Random(int(sys.argv[2]))
for number in range(10_000):
    events = tuple(
        NewEvent(f"s{chance.randrange(20)}", f"k{chance.randrange(5)}", "Happened", 1, "{}")
        for _ in range(chance.randrange(1, 4))
    )
    try:
        outcome = store.append(Command(secrets.token_hex(16), Cause("w", "r"), datetime.now(UTC), events))
    except StoreError:
        continue
    print(*outcome.positions, flush=True)
"""


def test_a_tailing_reader_sees_every_position_once(database: Database, store: Store) -> None:
    """16 writing processes, some killed, their backends terminated; the reader sees 1..n and no hole."""
    seed = 20261124
    chance = random.Random(seed)
    print(f"seed: {seed}")
    store.append(command(event("first")))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, database.app_url, str(n)], stdout=subprocess.PIPE)
        for n in range(16)
    ]
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while True:
            last = done.is_set()
            found = [each.position for each in store.read_log(seen[-1] if seen else 0, 500)]
            seen.extend(found)
            if last and not found:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            deadline = time.monotonic() + PATIENCE_S
            while store.head() < ENOUGH and time.monotonic() < deadline:
                time.sleep(chance.uniform(0.02, 0.2))
                if chance.random() < 0.3 and len([w for w in writers if w.poll() is None]) > 8:
                    os.kill(chance.choice([w for w in writers if w.poll() is None]).pid, signal.SIGKILL)
                else:
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'tagtrail-append' ORDER BY random() LIMIT 1"
                    )
    finally:
        for writer in writers:
            writer.kill()
        outputs = [writer.communicate()[0] for writer in writers]
        done.set()
        reader.join()
    acknowledged: set[int] = set()
    for output in outputs:
        whole = output[: output.rfind(b"\n") + 1]
        acknowledged.update(int(each) for each in whole.split())
    assert seen == list(range(1, len(seen) + 1))
    assert acknowledged <= set(seen)
    assert len(seen) >= ENOUGH
    assert acknowledged


def test_an_unreachable_database_is_told(database: Database) -> None:
    """StoreUnavailable, not a hang."""
    absent = Store("postgresql://nobody@127.0.0.1:1/none", append_timeout_s=1, read_timeout_s=1)
    with closing(absent), pytest.raises(StoreUnavailable):
        absent.append(command(event("a")))
