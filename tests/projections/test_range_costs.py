"""A reading of a part of the log costs what that part holds, however much else stands between its ends.

The statements and their parameters are those that the product has sent, and the planner is free to choose.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from domain.event import UnknownEvent
from eventstore.partition import DEFAULT_PARTITIONS, partition_of
from eventstore.reader import Reader
from eventstore.statement import Statement
from eventstore.store import Store
from projections.builds import compare
from projections.engine import build_tables, parking
from projections.engine.checkpoints import Moved, apply, lock, park
from projections.engine.folding import fold_into, read_key, read_range
from projections.engine.setup import engine_for, ensure_tables
from projections.models import links, tags
from tests.eventstore.costs import Cost, cost
from tests.postgres import Database, Server, drop_database, new_database

EVENTS = 60_000
# One key has few events, far apart, and another one nearly all: the planner then expects many events of a key.
RARE, COMMON, APART = "u/rare", "u/common", 2_000
# A key that has no event in most of the log, and many in the rest.
LATE, LATE_FROM = "u/late", EVENTS * 3 // 4
OF_RARE = EVENTS // APART
PARTITION, OTHER = partition_of(RARE, DEFAULT_PARTITIONS), partition_of(COMMON, DEFAULT_PARTITIONS)
VALUES = {
    "rare": RARE,
    "common": COMMON,
    "apart": APART,
    "late": LATE,
    "late_from": LATE_FROM,
    "events": EVENTS,
    "rare_part": PARTITION,
    "common_part": OTHER,
    "now": datetime(2026, 1, 1, tzinfo=UTC),
    "digest": "sha256:" + 64 * "0",
}
ALL = dict.fromkeys(range(DEFAULT_PARTITIONS), 0)
# The blocks of an index above its leaves, and leaves that are only partly read.
BLOCKS_MORE = 40

_FILL = """
INSERT INTO log.es_event (position, recorded_at, version, log_id, partition, schema_version, sets_ref, stream, key,
                          type, actor, request_id, ref, data)
SELECT n, %(now)s, n, 0, CASE WHEN rare THEN %(rare_part)s ELSE %(common_part)s END, 1, true,
       'tag-' || key || ':v' || n, key, 'TagMoved', 'a', 'r', 'manifest-' || key || '@' || %(digest)s,
       json_build_object('repository', key, 'tag', 'v' || n, 'digest', %(digest)s::text)
  FROM (SELECT n, n %% %(apart)s = 0 AS rare, CASE WHEN n %% %(apart)s = 0 THEN %(rare)s
                                              WHEN n > %(late_from)s THEN %(late)s ELSE %(common)s END AS key
          FROM generate_series(1, %(events)s) AS n) AS e
"""


@pytest.fixture(scope="module")
def log(postgres_server: Server) -> Iterator[Database]:
    """A log of many events, of which the read models have folded those of the rare key."""
    database = new_database(postgres_server)
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute(_FILL, VALUES)
        connection.execute("VACUUM (ANALYZE)")
    ensure_tables(database.app_url)
    with engine_for(database.app_url).begin() as made:
        build = build_tables.live(made, tags.model)
        events, _ = read_key(made, tags.model, RARE, 0, EVENTS, EVENTS)
        fold_into(made, tags.model, build.table, events)
        assert lock(made, build) is not None
        apply(made, build, [], dict.fromkeys(ALL, Moved(EVENTS)))
    yield database
    drop_database(postgres_server, database)


@pytest.fixture
def connection(log: Database) -> Iterator[sa.Connection]:
    """A projector's connection."""
    with engine_for(log.app_url).connect() as made:
        yield made


@pytest.fixture
def asked(log: Database) -> Iterator[list[tuple[str | Statement, Any]]]:
    """The questions to the log that the read models' side sends during the test."""
    found: list[tuple[str | Statement, Any]] = []

    def note(_: object, __: object, query: str, parameters: Any, ___: object, ____: object) -> None:
        if "log.es_event AS" in query and "max(e.position)" not in query:
            found.append((query, parameters))

    engine = engine_for(log.app_url)
    sa.event.listen(engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(engine, "before_cursor_execute", note)


def looked_at(log: Database, asked: list[tuple[str | Statement, Any]]) -> Cost:
    """The rows and blocks of all the questions together."""
    assert asked
    with psycopg.connect(log.app_url) as connection:
        costs = [cost(connection, query, parameters) for query, parameters in asked]
    return Cost({"es_event": sum(each.rows["es_event"] for each in costs)}, sum(each.blocks for each in costs))


def assert_that_of_the_key(found: Cost) -> None:
    """Check that only events of the rare key were read, each in a block of its own, and one that ends the reading."""
    assert found.rows["es_event"] <= OF_RARE + 1
    assert found.blocks <= 2 * OF_RARE + BLOCKS_MORE


def test_a_parked_key_is_replayed_at_the_cost_of_its_own_events(
    log: Database, connection: sa.Connection, asked: list[tuple[str | Statement, Any]]
) -> None:
    """A replay that read all events since then would hold the checkpoint, and others would wait for it."""
    with connection.begin():
        build = build_tables.live(connection, tags.model)
        (first,), more = read_key(connection, tags.model, RARE, 0, EVENTS, 1)
        park(connection, build, first, ValueError("the fold cannot take it"))
    assert more
    asked.clear()
    assert list(parking.replay(log.app_url)) == [parking.Replayed(build.id, RARE, OF_RARE, None)]
    assert_that_of_the_key(looked_at(log, asked))


def test_a_key_is_replayed_in_parts_that_read_nothing_twice(
    log: Database, connection: sa.Connection, asked: list[tuple[str | Statement, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction folds a part; the next one goes on behind it."""
    monkeypatch.setattr(parking, "BATCH_EVENTS", OF_RARE // 3)
    with connection.begin():
        build = build_tables.live(connection, tags.model)
        (first,), _ = read_key(connection, tags.model, RARE, 0, EVENTS, 1)
        park(connection, build, first, ValueError("the fold cannot take it"))
    asked.clear()
    assert list(parking.replay(log.app_url)) == [parking.Replayed(build.id, RARE, OF_RARE, None)]
    assert len(asked) == 3
    # Each part looks at one event more, to know that there is another part.
    assert looked_at(log, asked).rows["es_event"] <= OF_RARE + len(asked)


def test_the_fold_from_nothing_of_some_keys_reads_these_alone(
    log: Database, connection: sa.Connection, asked: list[tuple[str | Statement, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild that finds wrong rows of one repository folds that repository from nothing to judge them."""
    monkeypatch.setattr(compare, "_PYTHON_EVENTS", OF_RARE // 2)
    build = build_tables.live(connection, tags.model)
    asked.clear()
    assert compare.differs_from_python(connection, build, [RARE]) == set()
    found = looked_at(log, asked)
    assert found.rows["es_event"] <= OF_RARE + len(asked)
    assert found.blocks <= 2 * OF_RARE + len(asked) * BLOCKS_MORE


def test_events_of_a_partition_that_the_feed_lacks_are_read_from_that_partition(
    log: Database, connection: sa.Connection, asked: list[tuple[str | Statement, Any]]
) -> None:
    """To fill a hole in one partition no events of the others are read, however many there are."""
    events = read_range(connection, tags.model, 0, EVENTS, {PARTITION: APART}, EVENTS)
    assert [each.position for each in events] == list(range(2 * APART, EVENTS + 1, APART))
    assert_that_of_the_key(looked_at(log, asked))


def test_a_range_is_read_once(
    log: Database, connection: sa.Connection, asked: list[tuple[str | Statement, Any]]
) -> None:
    """The reading that brings the model's events also finds types that this program does not know."""
    assert len(read_range(connection, tags.model, 0, APART, ALL)) == APART
    assert read_range(connection, links.model, 0, APART, ALL) == []
    assert looked_at(log, asked).rows["es_event"] == 2 * APART


@pytest.mark.parametrize("position", [1, APART])
def test_an_unknown_type_is_found_by_every_reading_that_comes_by(database: Database, position: int) -> None:
    """Readings of its range, its partition and its key find it; those of another key or partition do not."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        query = _FILL.replace("'TagMoved'", f"CASE n WHEN {position} THEN 'Later' ELSE 'TagMoved' END")
        admin.execute(query, {**VALUES, "events": APART})
    met, missed = ((RARE, PARTITION), (COMMON, OTHER))[:: 1 if position == APART else -1]
    with engine_for(database.app_url).connect() as connection:
        for read in (
            lambda: read_range(connection, tags.model, 0, APART, ALL),
            lambda: read_range(connection, tags.model, 0, APART, {met[1]: 0}),
            lambda: read_key(connection, tags.model, met[0], 0, APART, APART),
        ):
            with pytest.raises(UnknownEvent, match=f"event {position} has the unknown type 'Later'"):
                read()
        assert {each.key for each in read_range(connection, tags.model, 0, APART, {missed[1]: 0})} == {missed[0]}
        assert {each.key for each in read_key(connection, tags.model, missed[0], 0, APART, APART)[0]} == {missed[0]}


@pytest.mark.parametrize(("key", "first"), [(RARE, APART), (LATE, LATE_FROM + 1)])
def test_the_log_of_one_repository_is_shown_at_the_cost_of_its_own_events(
    log: Database, monkeypatch: pytest.MonkeyPatch, key: str, first: int
) -> None:
    """`events tail --repo` reads a repository of few events, and one of many events of which none is at the start."""
    found: list[tuple[str | Statement, Any]] = []
    rows_of = Reader.rows

    def listening(reader: Reader, query: str | Statement, parameters: Any = ()) -> list[Any]:
        found.append((query, parameters))
        return rows_of(reader, query, parameters)

    with closing(Store(log.app_url, pool_size=1)) as store:
        monkeypatch.setattr(Reader, "rows", listening)
        events = store.read_log(0, OF_RARE, key=key)
    assert len(events) == OF_RARE
    assert (events[0].position, {each.key for each in events}) == (first, {key})
    assert_that_of_the_key(looked_at(log, found))
