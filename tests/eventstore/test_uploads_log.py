"""The log of uploads: beside the history, in one transaction with it or alone, in parts that go whole."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

from eventstore import schema, verify
from eventstore.codec import decode_outcome, encode_command
from eventstore.feed.followed import Followed
from eventstore.partition import DEFAULT_PARTITIONS
from eventstore.store import Store
from eventstore.types import (
    ENSURE,
    HISTORY,
    NOWHERE_YET,
    UPLOADS,
    Appended,
    AppendRejected,
    Command,
    Exact,
    NewEvent,
    Outcome,
    RefIs,
    Refused,
    StoreUnavailable,
)
from tests.eventstore.making import command, event
from tests.eventstore.uploads import DAY, OPEN, begun, chatter, ended
from tests.postgres import Database
from tests.waiting import eventually


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store over a fresh database, whose clock may be moved."""
    with closing(Store(database.app_url, allow_clock_skew=True)) as made:
        yield made


@contextmanager
def holding(database: Database, log: int) -> Iterator[None]:
    """The lock of a log is held by somebody else."""
    with psycopg.connect(database.app_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(4711, %s)", (log,))
        yield


def append_all(connection: psycopg.Connection, in_log: int, *commands: Command) -> list[Outcome]:
    """One call of es_append."""
    batch = "[" + ",".join(encode_command(each, DEFAULT_PARTITIONS) for each in commands) + "]"
    row = connection.execute("SELECT log.es_append(%s::smallint, %s::jsonb, false)", (in_log, batch)).fetchone()
    assert row is not None
    return [decode_outcome(each) for each in row[0]]


def test_each_log_has_positions_of_its_own(store: Store, database: Database) -> None:
    """One command for both appends to both; the history sees nothing of the session."""
    assert store.append(command(event("a"))) == store_outcome(store, (1,))
    first = store.append(begun("upload-1"))
    assert isinstance(first, Appended)
    assert first.positions == (1,)
    both = store.append(command(chatter("upload-1", Exact(1), ref=None), event("b"), event("c")))
    assert isinstance(both, Appended)
    assert both.positions == (2, 3)
    assert [(each.position, each.stream) for each in store.read_log(0, 10)] == [(1, "a"), (2, "b"), (3, "c")]
    read = store.read_log(0, 10, log=UPLOADS)
    assert [(each.position, each.stream, each.version, each.prev_ref) for each in read] == [
        (1, "upload-1", 1, None),
        (2, "upload-1", 2, OPEN),
    ]
    assert (store.head(), store.head(UPLOADS)) == (3, 2)
    assert verify.verify(database.app_url) == []


def store_outcome(store: Store, positions: tuple[int, ...]) -> Appended:
    """The outcome of the last append to the history."""
    return Appended(positions, positions[-1], store.read_log(positions[-1] - 1, 1)[0].recorded_at)


def test_a_refusal_by_either_log_leaves_no_trace_in_the_other(store: Store) -> None:
    """Conflicts of both are named."""
    store.append(begun("upload-1"))
    store.append(command(event("a")))
    wrong_session = store.append(command(event("b"), chatter("upload-1", Exact(7))))
    assert isinstance(wrong_session, Refused)
    assert [(each.stream, each.version, each.log) for each in wrong_session.conflicts] == [("upload-1", 1, UPLOADS)]
    unlinked = store.append(command(event("b"), chatter("upload-1", Exact(1)), needs=(RefIs((("L", "live"),)),)))
    assert unlinked == Refused(failed_conditions=(0,))
    both = store.append(command(event("a", Exact(5)), chatter("upload-1", Exact(7))))
    assert isinstance(both, Refused)
    assert [(each.stream, each.version) for each in both.conflicts] == [("a", 1), ("upload-1", 1)]
    assert (store.head(), store.head(UPLOADS)) == (1, 1)


def test_a_session_begins_in_one_log_only(store: Store) -> None:
    """If one has it, neither takes its start again; it is found in either."""
    here, there = event("upload-1", NOWHERE_YET, ref=OPEN), chatter("upload-1", NOWHERE_YET)
    assert isinstance(store.append(command(here)), Appended)
    refused = store.append(command(there))
    assert isinstance(refused, Refused)
    assert [(each.stream, each.version, each.log) for each in refused.conflicts] == [("upload-1", 1, HISTORY)]
    assert isinstance(store.append(begun("upload-2")), Appended)
    refused = store.append(command(event("upload-2", NOWHERE_YET, ref=OPEN)))
    assert isinstance(refused, Refused)
    assert [(each.stream, each.version, each.log) for each in refused.conflicts] == [("upload-2", 1, UPLOADS)]
    states = store.session_states(["upload-1", "upload-2", "upload-3"])
    assert [(each.version, each.log) for each in states.values()] == [(1, HISTORY), (1, UPLOADS), (0, HISTORY)]
    idle = store.idle_streams(OPEN, datetime.now(UTC) + DAY, 10)
    assert sorted((each.stream, each.log) for each in idle) == [("upload-1", HISTORY), ("upload-2", UPLOADS)]


def test_of_two_that_begin_a_session_in_different_logs_one_does(database: Database) -> None:
    """Both ways are taken at once while an upgrade ends."""
    with (
        closing(Store(database.app_url)) as old,
        closing(Store(database.app_url)) as new,
        ThreadPoolExecutor(2) as pool,
    ):
        for number in range(30):
            here = command(event(f"upload-{number}", NOWHERE_YET, ref=OPEN))
            done = [pool.submit(old.append, here), pool.submit(new.append, begun(f"upload-{number}"))]
            assert sorted(type(each.result()).__name__ for each in done) == ["Appended", "Refused"]


def test_a_session_waits_for_no_append_to_the_history(database: Database) -> None:
    """It takes the lock of its own log alone, as the history does; what appends to both takes both."""
    with closing(Store(database.app_url, append_timeout_s=0.5)) as store:
        with holding(database, HISTORY):
            assert isinstance(store.append(begun("upload-1")), Appended)
            with pytest.raises(StoreUnavailable):
                store.append(command(event("a"), chatter("upload-1", Exact(1))))
        with holding(database, UPLOADS):
            assert isinstance(store.append(command(event("b"))), Appended)
            for blocked in (begun("upload-2"), command(event("c"), chatter("upload-1", Exact(1)))):
                with pytest.raises(StoreUnavailable):
                    store.append(blocked)
            with pytest.raises(StoreUnavailable):
                store.append(command(event("upload-3", NOWHERE_YET)))
        assert [each.stream for each in store.read_log(0, 10)] == ["b"]


def test_what_concerns_the_history_is_not_appended_without_its_lock(store: Store, database: Database) -> None:
    """A condition on a stream of the history is judged there, also for a session alone."""
    conditional = command(chatter("upload-1", NOWHERE_YET), needs=(RefIs((("L", "live"),)),))
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        for each in (command(event("a")), conditional):
            with pytest.raises(psycopg.Error, match="concerns the history"):
                append_all(connection, UPLOADS, each)
    assert store.append(conditional) == Refused(failed_conditions=(0,))
    store.append(command(event("L", ref="live")))
    assert isinstance(store.append(conditional), Appended)


def test_the_lock_of_the_history_comes_first(database: Database) -> None:
    """An append that waits for the second one holds the first: so two can never wait for each other."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND NOT granted AND objid = %s"
    )
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND granted AND objid = %s"
    with (
        closing(Store(database.app_url)) as store,
        psycopg.connect(database.app_url, autocommit=True) as looking,
        ThreadPoolExecutor(1) as pool,
    ):
        with holding(database, UPLOADS):
            done = pool.submit(store.append, command(event("a"), chatter("upload-1", NOWHERE_YET)))
            eventually(lambda: looking.execute(waiting, (UPLOADS,)).fetchone() == (1,), 30.0)
            assert looking.execute(held, (HISTORY,)).fetchone() == (1,)
        assert isinstance(done.result(), Appended)


def test_the_same_id_answers_the_same_in_whatever_batch(database: Database) -> None:
    """Sent again after a lost answer, a command may be in other company."""
    session, push = begun("upload-1"), command(event("a"))
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        (first,) = append_all(connection, UPLOADS, session)
        again, other = append_all(connection, HISTORY, session, push)
        (last,) = append_all(connection, UPLOADS, session)
    assert isinstance(first, Appended)
    assert isinstance(again, Appended)
    assert again.repeated
    assert again == last
    assert (again.positions, again.recorded_at) == (first.positions, first.recorded_at)
    assert isinstance(other, Appended)
    assert other.positions == (1,)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((chatter("upload-1", Exact(1)), chatter("upload-2", Exact(1))), "one stream"),
        ((NewEvent("upload-1", "key", "H", 1, "{}", ENSURE, OPEN, log=UPLOADS),), "for the history"),
        ((NewEvent("upload-1", "key", "H", 1, "{}", refers_to=("x",), log=UPLOADS),), "for the history"),
        ((NewEvent("upload-1", "key", "H", 1, "{}", content="sha256:x", log=UPLOADS),), "for the history"),
    ],
)
def test_what_the_log_of_uploads_cannot_hold_is_refused(store: Store, events: tuple[NewEvent, ...], why: str) -> None:
    """References, contents and several streams are of the history."""
    with pytest.raises(AppendRejected, match=why):
        store.append(command(*events))


def test_what_stands_beside_the_log_of_uploads_is_made_anew(store: Store, database: Database) -> None:
    """Rows that are wrong, missing and too many are named and mended."""
    for number in range(3):
        store.append(begun(f"upload-{number}"))
    store.append(ended("upload-0", 1))
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("UPDATE log.es_upload_stream SET ref = 'other' WHERE stream = 'upload-0'")
        admin.execute("DELETE FROM log.es_upload_stream WHERE stream = 'upload-1'")
    found = {each.about for each in verify.verify(database.app_url)}
    assert found == {"stream upload-0", "stream upload-1"}
    verify.rebuild(database.owner_url)
    assert verify.verify(database.app_url) == []


@pytest.mark.parametrize(
    ("statement", "about"),
    [
        ("DELETE FROM log.es_upload_event WHERE position = 2", "position 3 of the log of uploads"),
        (
            "UPDATE log.es_upload_event SET recorded_at = '2000-01-01' WHERE position = 3",
            "position 3 of the log of uploads",
        ),
        ("UPDATE log.es_upload_event SET version = 9 WHERE position = 4", "stream upload-0"),
        ("UPDATE log.es_upload_event SET prev_ref = 'other' WHERE position = 4", "stream upload-0"),
        ("UPDATE log.es_upload_part SET first_position = 2", "position 1 of the log of uploads"),
    ],
)
def test_each_fault_of_the_log_of_uploads_is_named(
    store: Store, database: Database, statement: str, about: str
) -> None:
    """By the position or the stream that it is about."""
    for number in range(3):
        store.append(begun(f"upload-{number}"))
    store.append(ended("upload-0", 1))
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for table in ("es_upload_event", "es_upload_event_1"):
            admin.execute(f"ALTER TABLE log.{table} DISABLE TRIGGER ALL".encode())
        admin.execute(statement.encode())
    assert about in [each.about for each in verify.verify(database.app_url)]


def test_both_logs_are_of_one_epoch(database: Database) -> None:
    """A database that was restored has used positions of both again."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("UPDATE log.es_log SET timeline = 99")
    raised = schema.note_cluster(database.app_url)
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        assert [Followed(connection, each).epoch() for each in (HISTORY, UPLOADS)] == [raised, raised]
        connection.execute("SELECT log.es_raise_epoch(0::smallint, %s)", (raised,))
        assert [Followed(connection, each).epoch() for each in (HISTORY, UPLOADS)] == [raised + 1, raised + 1]
