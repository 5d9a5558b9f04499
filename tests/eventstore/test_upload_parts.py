"""The parts of the log of uploads: begun, guarded, and dropped whole."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore import schema, verify
from eventstore.store import Store
from eventstore.types import UPLOADS, Appended
from eventstore.upkeep import UPLOAD_PARTS, Upkeep
from tests.eventstore.costs import pages_again
from tests.eventstore.making import Clock, command, event
from tests.eventstore.uploads import DAY, KEPT, begun, ended, parts
from tests.postgres import Database

# 50,000 rows are on a thousand pages.
PAGES_OF_A_LOOK = 200


@pytest.fixture
def clock() -> Clock:
    """The clock of upkeep, which may be moved on for months before it is ahead of the database's."""
    made = Clock()
    made.now -= 120 * DAY
    return made


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


def test_the_log_of_uploads_goes_in_parts(store: Store, upkeep: Upkeep, clock: Clock, database: Database) -> None:
    """A third of the time's sessions each; they go whole after that time, streams included; the log stays right."""
    start = clock.now
    for step in range(12):
        clock.now = start + step * KEPT / UPLOAD_PARTS
        upkeep.begin_upload_part(KEPT)
        upkeep.drop_upload_part(KEPT, DAY)
        store.append(begun(f"upload-{step}", clock.now))
        store.append(ended(f"upload-{step}", 1, clock.now))
        assert verify.verify(database.app_url) == []
    assert parts(database) == dict.fromkeys((9, 10, 11, 12), 2)
    assert {each.stream for each in store.read_log(0, 100, log=UPLOADS)} == {f"upload-{step}" for step in range(8, 12)}
    assert [store.session_state(f"upload-{step}").version for step in (0, 7, 8, 11)] == [0, 0, 2, 2]
    with psycopg.connect(database.app_url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^es_upload_(event|stream)_[0-9]+$'"
        ).fetchone()
    assert tables == (2 * (UPLOAD_PARTS + 1),)


def test_a_part_stays_while_a_session_is_open_or_has_just_ended(store: Store, upkeep: Upkeep, clock: Clock) -> None:
    """However old its events are; a closing PUT may be repeated for a while."""
    start = clock.now
    store.append(begun("upload-1", start))
    clock.now = start + 3 * DAY
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


def test_a_part_that_is_read_goes_later(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The keeper does not keep sessions waiting for a backup that reads the log, and says why nothing was dropped."""
    store.append(begun("upload-1", clock.now))
    store.append(ended("upload-1", 1, clock.now))
    clock.now += KEPT + DAY
    upkeep.begin_upload_part(KEPT)
    with psycopg.connect(database.app_url) as reading:
        reading.execute("SELECT count(*) FROM log.es_upload_event")
        assert upkeep.drop_upload_part(KEPT, DAY).removed == 0
        assert isinstance(store.append(begun("upload-2")), Appended)
    assert [each.message for each in caplog.records if "is in use" in each.message] == [
        "the oldest part of the log of uploads is in use (a backup?), and is dropped later"
    ]
    assert upkeep.drop_upload_part(KEPT, DAY).removed == 1


def test_a_part_is_begun_while_others_read_and_append(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """A backup of hours does not keep parts from being begun, and beginning one keeps nobody waiting."""
    store.append(begun("upload-1", clock.now))
    clock.now += 3 * DAY
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
    clock.now += 3 * DAY
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
    clock.now += 3 * DAY
    upkeep.begin_upload_part(KEPT)
    assert schema.check(database.app_url) == []
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("DROP TRIGGER es_upload_append_only ON log.es_upload_event_2")
    (fault,) = schema.check(database.app_url)
    assert "log.es_upload_event_2" in fault


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


def test_a_part_goes_beside_a_vacuum_of_another(store: Store, upkeep: Upkeep, clock: Clock, database: Database) -> None:
    """Only the tables that go are locked, and those of which they are parts."""
    store.append(begun("upload-1", clock.now))
    store.append(ended("upload-1", 1, clock.now))
    clock.now += KEPT + DAY
    upkeep.begin_upload_part(KEPT)
    with psycopg.connect(database.admin_url) as vacuum:
        vacuum.execute("LOCK TABLE log.es_upload_event_2, log.es_upload_stream_2 IN SHARE UPDATE EXCLUSIVE MODE")
        assert upkeep.drop_upload_part(KEPT, DAY).removed == 1


def test_a_keeper_whose_clock_is_ahead_drops_nothing_of_the_last_day(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """Nor does whoever calls the function as the application: it measures by a time of its own."""
    for number, hours_ago in enumerate((30, 20, 3)):
        clock.now = datetime.now(UTC) - timedelta(hours=hours_ago)
        store.append(begun(f"upload-{number}", clock.now))
        store.append(ended(f"upload-{number}", 1, clock.now))
        upkeep.drop_upload_part(KEPT, DAY)
        clock.now += timedelta(hours=2)
        upkeep.begin_upload_part(timedelta(hours=6))
        upkeep.drop_upload_part(KEPT, DAY)
    assert parts(database) == {1: 2, 2: 2, 3: 2, 4: 0}
    clock.now += 1000 * DAY
    assert [upkeep.drop_upload_part(KEPT, DAY).removed for _ in range(2)] == [1, 0]
    assert parts(database) == {2: 2, 3: 2, 4: 0}


def test_no_part_is_begun_within_an_hour(store: Store, database: Database) -> None:
    """Each look for a session asks all parts, so nobody may make them without end."""
    store.append(begun("upload-1"))
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        row = connection.execute("SELECT log.es_begin_upload_part('infinity')").fetchone()
    assert (row, parts(database)) == ((False,), {1: 1})


def test_a_large_part_is_judged_at_the_cost_of_a_small_one(
    store: Store, upkeep: Upkeep, clock: Clock, database: Database
) -> None:
    """Pages are read for the sessions that are open, not for those that have ended."""
    store.append(begun("upload-1", clock.now))
    clock.now += 3 * DAY
    upkeep.begin_upload_part(KEPT)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(
            "INSERT INTO log.es_upload_stream (first_position, last_position, recorded_at, version, part, log_id,"
            " stream, key, state) SELECT g, g, %s, 3, 1, 1, 'upload-a' || g, 'key', '{}'"
            "   FROM generate_series(1, 50000) AS g",
            (clock.now,),
        )
    with psycopg.connect(database.app_url, autocommit=True) as connection:

        def judged(before: datetime) -> int:
            """Pages touched by both questions, of which the first one notes that all have ended."""
            ended_before = clock.now + timedelta(seconds=1)
            return sum(
                pages_again(connection, f"SELECT log.{function}(%s, %s)", (before, ended_before))
                for function in ("es_drop_upload_part", "es_upload_part_over")
            )

        assert judged(clock.now) < PAGES_OF_A_LOOK
        assert isinstance(store.append(ended("upload-1", 1, clock.now)), Appended)
        assert judged(clock.now - 9 * DAY) < PAGES_OF_A_LOOK
        over = (clock.now, clock.now + timedelta(seconds=1))
        assert pages_again(connection, "SELECT log.es_upload_part_over(%s, %s)", over) < PAGES_OF_A_LOOK
        assert connection.execute("SELECT log.es_upload_part_over(%s, %s)", over).fetchone() == (1,)
