"""The log of uploads: beside the history, in one transaction with it or alone, in parts that go whole."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

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
    Mode,
    NewEvent,
    Outcome,
    RefIs,
    Refused,
    StoreUnavailable,
)
from eventstore.upkeep import UPLOAD_PARTS, Upkeep
from tests.eventstore.making import Clock, command, event
from tests.postgres import Database
from tests.waiting import eventually

DAY = timedelta(days=1)
KEPT = 7 * DAY
OPEN = "open"


@pytest.fixture
def clock() -> Clock:
    """The clock of upkeep."""
    return Clock()


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store over a fresh database, whose clock may be moved."""
    with closing(Store(database.app_url, allow_clock_skew=True)) as made:
        yield made


@pytest.fixture
def upkeep(database: Database, clock: Clock) -> Iterator[Upkeep]:
    """The keeper's work on that database."""
    with closing(Upkeep(database.app_url, clock)) as made:
        yield made


def chatter(stream: str, mode: Mode, *, ref: str | None = OPEN, state: str = "{}") -> NewEvent:
    """Something that happens to a session, in the log of uploads."""
    return NewEvent(stream, "key", "Happened", 1, "{}", mode, ref, state, log=UPLOADS)


def begun(stream: str, now: datetime | None = None) -> Command:
    """The start of a session."""
    return command(chatter(stream, NOWHERE_YET), now=now)


def ended(stream: str, version: int, now: datetime | None = None) -> Command:
    """Its end."""
    return command(chatter(stream, Exact(version), ref=None), now=now)


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


def test_times_of_the_log_of_uploads_never_fall(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    """Nor do they after a part was begun and those before it have gone; positions go on too."""
    start = clock.now
    store.append(begun("upload-1", start))
    store.append(ended("upload-1", 1, start - DAY))
    clock.now = start + KEPT + DAY
    upkeep.begin_upload_part(KEPT)
    assert upkeep.drop_upload_part(KEPT, DAY).removed == 1
    assert (store.read_log(0, 10, log=UPLOADS), store.head(UPLOADS)) == ([], 2)
    store.append(begun("upload-2", start - DAY))
    assert [(each.position, each.recorded_at) for each in store.read_log(0, 10, log=UPLOADS)] == [(3, start)]


def parts(database: Database) -> dict[int, int]:
    """The number of events of each part."""
    with psycopg.connect(database.app_url) as connection:
        return dict(
            connection.execute(
                "SELECT p.part, (SELECT count(*) FROM log.es_upload_event AS e WHERE e.part = p.part)"
                " FROM log.es_upload_part AS p"
            ).fetchall()
        )


def test_the_log_of_uploads_goes_in_parts(store: Store, upkeep: Upkeep, clock: Clock, database: Database) -> None:
    """A day's sessions each; they go whole a week later, streams included, and the log stays right."""
    start = clock.now
    for day in range(12):
        clock.now = start + day * DAY
        upkeep.begin_upload_part(KEPT)
        upkeep.drop_upload_part(KEPT, DAY)
        store.append(begun(f"upload-{day}", clock.now))
        store.append(ended(f"upload-{day}", 1, clock.now))
        assert verify.verify(database.app_url) == []
    assert parts(database) == dict.fromkeys(range(5, 13), 2)
    assert {each.stream for each in store.read_log(0, 100, log=UPLOADS)} == {f"upload-{day}" for day in range(4, 12)}
    assert [store.session_state(f"upload-{day}").version for day in (0, 3, 4, 11)] == [0, 0, 2, 2]
    with psycopg.connect(database.app_url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^es_upload_(event|stream)_[0-9]+$'"
        ).fetchone()
    assert tables == (2 * (UPLOAD_PARTS + 1),)


def test_a_part_stays_while_a_session_is_open_or_has_just_ended(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    """However old its events are; a closing PUT may be repeated for a while."""
    start = clock.now
    store.append(begun("upload-1", start))
    clock.now = start + 2 * DAY
    upkeep.begin_upload_part(KEPT)
    clock.now = start + 30 * DAY
    assert (upkeep.upload_parts_over(KEPT, DAY), upkeep.drop_upload_part(KEPT, DAY).removed) == (0, 0)
    store.append(ended("upload-1", 1, clock.now))
    assert (upkeep.upload_parts_over(KEPT, DAY), upkeep.drop_upload_part(KEPT, DAY).removed) == (0, 0)
    clock.now += DAY + timedelta(seconds=1)
    assert (upkeep.upload_parts_over(KEPT, DAY), upkeep.drop_upload_part(KEPT, DAY).removed) == (1, 1)
    assert store.session_state("upload-1").version == 0
    assert [each.version for each in store.read_log(0, 10, log=UPLOADS)] == [2]


def test_the_rest_of_a_stream_that_began_in_a_dropped_part_is_no_fault(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """Its last events stand in a part that is kept."""
    test_a_part_stays_while_a_session_is_open_or_has_just_ended(store, upkeep, clock)
    assert verify.verify(database.app_url) == []


def test_the_part_that_is_written_never_goes(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    """And no part is begun before the first event of the last one is old."""
    store.append(begun("upload-1", clock.now))
    store.append(ended("upload-1", 1, clock.now))
    upkeep.begin_upload_part(KEPT)
    clock.now += 100 * DAY
    assert upkeep.drop_upload_part(KEPT, DAY).removed == 0
    assert store.head(UPLOADS) == 2


def test_a_part_that_is_read_goes_later(store: Store, upkeep: Upkeep, clock: Clock, database: Database) -> None:
    """The keeper does not keep sessions waiting for a backup that reads the log."""
    store.append(begun("upload-1", clock.now))
    store.append(ended("upload-1", 1, clock.now))
    clock.now += KEPT + DAY
    upkeep.begin_upload_part(KEPT)
    with psycopg.connect(database.app_url) as reading:
        reading.execute("SELECT count(*) FROM log.es_upload_event")
        assert upkeep.drop_upload_part(KEPT, DAY).removed == 0
        assert isinstance(store.append(begun("upload-2")), Appended)
    assert upkeep.drop_upload_part(KEPT, DAY).removed == 1


def test_a_part_is_begun_while_others_read_and_append(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """A backup of hours does not keep parts from being begun, and beginning one keeps nobody waiting."""
    store.append(begun("upload-1", clock.now))
    clock.now += 2 * DAY
    with psycopg.connect(database.app_url) as reading:
        reading.execute("SELECT count(*) FROM log.es_upload_event")
        upkeep.begin_upload_part(KEPT)
        assert isinstance(store.append(begun("upload-2")), Appended)
    assert parts(database) == {1: 1, 2: 1}


@pytest.mark.parametrize("table", ["es_upload_event", "es_upload_event_1", "es_upload_event_2"])
@pytest.mark.parametrize("change", ["UPDATE log.{} SET type = 'Other'", "DELETE FROM log.{}", "TRUNCATE log.{}"])
def test_no_part_can_be_changed(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database, table: str, change: str
) -> None:
    """Not by the owner either, whichever table the statement names."""
    store.append(begun("upload-1", clock.now))
    clock.now += 2 * DAY
    upkeep.begin_upload_part(KEPT)
    store.append(begun("upload-2", clock.now))
    for url, problem in (
        (database.owner_url, "append-only"),
        (database.app_url, "permission denied|must be owner"),
    ):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.Error, match=problem):
            connection.execute(change.format(table).encode())


def test_a_part_without_its_guard_is_refused_at_start(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """Each part is looked at, and not only the table of all."""
    store.append(begun("upload-1", clock.now))
    clock.now += 2 * DAY
    upkeep.begin_upload_part(KEPT)
    assert schema.check(database.app_url) == []
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("DROP TRIGGER es_upload_append_only ON log.es_upload_event_2")
    (fault,) = schema.check(database.app_url)
    assert "log.es_upload_event_2" in fault


def test_the_application_drops_nothing_by_itself(database: Database) -> None:
    """Nor does it make a part: functions of the owner do, and none of them names the history."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        for statement in (
            "DROP TABLE log.es_upload_event_1",
            "ALTER TABLE log.es_upload_event DETACH PARTITION log.es_upload_event_1",
            "SELECT log.es_make_upload_part(7)",
            "DELETE FROM log.es_upload_part",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


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


def test_keys_of_the_log_of_uploads_are_not_forgotten_early(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """The clocks of sessions may have been ahead of all others for a while."""
    session = begun("upload-1", clock.now + 9 * DAY)
    store.append(session)
    store.append(command(event("a"), now=clock.now))
    upkeep.forget_commands(3 * DAY)
    again = store.append(session)
    assert isinstance(again, Appended)
    assert again.repeated
