"""The work of es_append on several commands in one call, and on what it is given."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore.store import Store
from eventstore.types import (
    ENSURE,
    NONE_YET,
    Appended,
    AppendRejected,
    Command,
    Content,
    Exact,
    Expand,
    NewEvent,
    RefIs,
    RefIsNot,
    Refused,
    Unreferenced,
)
from tests.eventstore.making import append_batch, command, event
from tests.postgres import Database

SAMPLES = 20
GROWN = 400


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    """The application's connection, prepared and in autocommit as the combiner's is."""
    with psycopg.connect(database.app_url, autocommit=True, prepare_threshold=0) as made:
        yield made


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store over a fresh database."""
    made = Store(database.app_url)
    yield made
    made.close()


def test_a_refused_command_leaves_the_others_of_its_batch_whole(connection: psycopg.Connection, store: Store) -> None:
    """It leaves no trace of itself: no event, no stream, no reference, no key; positions have no hole."""
    refused = command(event("x", refers_to=("y",)), event("a", Exact(7)), address="127.0.0.1")
    first, second, third = append_batch(
        connection, [command(event("a"), event("b")), refused, command(event("c"), event("a"))]
    )
    assert isinstance(first, Appended)
    assert isinstance(second, Refused)
    assert isinstance(third, Appended)
    assert (first.positions, third.positions) == ((1, 2), (3, 4))
    assert [(each.stream, each.version) for each in second.conflicts] == [("a", 1)]
    assert [each.stream for each in store.read_log(0, 10)] == ["a", "b", "c", "a"]
    assert store.stream_state("x").version == 0
    assert store.referring_streams("y", 10) == []
    assert connection.execute("SELECT count(*) FROM log.es_client").fetchone() == (0,)
    again = append_batch(connection, [refused])[0]
    assert isinstance(again, Refused)


def test_a_command_sees_its_predecessors_in_the_batch(connection: psycopg.Connection) -> None:
    """{unlink L; push that needs L} in one batch: the push is refused; {link L; push} passes."""
    live = RefIs((("L", "live"),))
    outcomes = append_batch(
        connection,
        [
            command(event("L", ref="live")),
            command(event("push 1"), needs=(live,)),
            command(event("L", ref=None)),
            command(event("push 2"), needs=(live,)),
        ],
    )
    assert [isinstance(each, Appended) for each in outcomes] == [True, True, True, False]


def test_the_same_id_twice_in_a_batch_is_appended_once(connection: psycopg.Connection, store: Store) -> None:
    """The second is answered like the first."""
    given = command(event("a"))
    first, second = append_batch(connection, [given, given])
    assert isinstance(first, Appended)
    assert isinstance(second, Appended)
    assert (second.repeated, second.positions, second.recorded_at) == (True, first.positions, first.recorded_at)
    assert store.head() == 1


def test_pushing_a_then_b_then_a_ends_at_a(store: Store) -> None:
    """The key of idempotency is never made of content, so the third push is not taken for the first."""
    for target in ("A", "B", "A"):
        store.append(command(event("tag", ref=target)))
    assert store.stream_state("tag").ref == "A"
    assert [each.prev_ref for each in store.read_stream("tag")] == [None, "A", "B"]


def test_expand_leaves_a_tag_alone_that_the_same_command_moved_away(store: Store) -> None:
    """It reaches a tag that the same command moved to the ref."""
    store.append(command(event("tag-r:away", ref="m1"), event("tag-r:there", ref="m2")))
    before = store.head()
    store.append(
        command(
            event("tag-r:away", ref="m2"),
            event("tag-r:there", ref="m1"),
            Expand("m1", "tag-r:", "key", "Gone", 1, "{}", "tag"),
        )
    )
    assert [each.stream for each in store.read_log(before, 10)] == ["tag-r:away", "tag-r:there", "tag-r:there"]
    assert store.read_log(before, 10)[-1].data == '{"tag":"there"}'


def test_json_stays_exactly_as_given(store: Store) -> None:
    """Order, doubles, spaces, escapes that text cannot hold, nested ends: data and state are never rewritten."""
    text = '{"z": 1, "a":"\\u0000\\ud800", "a":1.0,"n":{"m":{}}}'
    store.append(command(event("tag-r:1", ref="m", data=text, state=text)))
    store.append(command(Expand("m", "tag-r:", "key", "Gone", 1, text, "tag")))
    first, second = store.read_log(0, 10)
    assert first.data == text
    assert second.data == text[:-1] + ',"tag":"1"}'
    assert store.stream_state("tag-r:1").state == text


def test_keys_of_a_batch_are_kept_where_their_times_belong(connection: psycopg.Connection, database: Database) -> None:
    """A batch may span the end of one partition of the ring and the beginning of the next; both are found again."""
    turn = datetime.fromtimestamp(345_600 * 5_000, UTC)
    commands = [
        command(event("a"), now=turn - timedelta(seconds=1), address="127.0.0.1"),
        command(event("a"), now=turn + timedelta(seconds=1), address="127.0.0.2"),
        # Nothing is appended for it, so it has no address.
        command(event("b", ENSURE, ref=None), now=turn + timedelta(seconds=1), address="127.0.0.3"),
    ]
    first = append_batch(connection, commands)
    with psycopg.connect(database.admin_url) as admin:
        parts = admin.execute("SELECT id, part, log.es_ring_part(recorded_at) FROM log.es_command_ring").fetchall()
        addresses = admin.execute(
            "SELECT first_position, last_position, address FROM log.es_client ORDER BY first_position"
        ).fetchall()
    assert {each.id for each in commands} == {name for name, _, _ in parts}
    assert len({part for _, part, _ in parts}) == 2
    assert all(part == belongs for _, part, belongs in parts)
    assert addresses == [(1, 1, "127.0.0.1"), (2, 2, "127.0.0.2")]
    assert [replace(each, repeated=True) for each in first if isinstance(each, Appended)] == append_batch(
        connection, commands
    )


def test_successive_events_of_one_stream_leave_it_as_if_each_were_written(store: Store) -> None:
    """The second one may also be dropped, say nothing of ref or state, or come behind an event of another stream."""
    store.append(
        command(event("a", ref="x", state="1"), event("a"), event("a", ENSURE, ref="x"), event("b"), event("a"))
    )
    assert (store.stream_state("a").version, store.stream_state("a").ref, store.stream_state("a").state) == (
        3,
        "x",
        "1",
    )
    store.append(command(event("a", ref="y"), event("a", state=None), event("a", ENSURE, ref="z", state="2")))
    assert (store.stream_state("a").version, store.stream_state("a").ref, store.stream_state("a").state) == (
        6,
        "z",
        "2",
    )
    assert [(each.stream, each.version, each.prev_ref) for each in store.read_log(0, 10)] == [
        *(("a", 1, None), ("a", 2, "x"), ("b", 1, None), ("a", 3, "x")),
        *(("a", 4, "x"), ("a", 5, "y"), ("a", 6, "y")),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        event("a", data="{"),
        event("a", data='{"a":"' + "x" * 2048 + '"}'),
        event("nul\x00"),
        event("surrogate\ud800"),
        event("a", state="not json"),
    ],
    ids=["not json", "too large", "nul", "surrogate", "state"],
)
def test_what_can_never_be_appended_is_rejected(store: Store, bad: NewEvent) -> None:
    """AppendRejected, not a retry; nothing is appended; the store goes on."""
    with pytest.raises(AppendRejected):
        store.append(command(event("before"), bad))
    assert isinstance(store.append(command(event("a"))), Appended)
    assert store.head() == 1


def test_an_append_is_durable_whatever_the_session_says(database: Database) -> None:
    """Synchronous_commit is on at the commit though the session had it off."""
    with psycopg.connect(database.app_url) as connection:
        connection.execute("SET synchronous_commit = off")
        append_batch(connection, [command(event("a"))])
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


SHAPES: dict[str, Callable[[int], Command]] = {
    "any": lambda n: command(event("tag", ref=f"m{n}")),
    "none yet": lambda n: command(event(f"upload-{n}", NONE_YET, ref="open", state="{}")),
    "exact": lambda n: command(event(f"upload-{n}", Exact(1), state="{}")),
    "ensure": lambda n: command(event("repo", ENSURE, ref="live"), event(f"blob-{n}", ENSURE, ref="live")),
    "refused version": lambda n: command(event("repo", Exact(0))),
    "ref is": lambda n: command(event("x"), needs=(RefIs(((f"none-{n}", "live"), (f"blob-{n}", "live"))),)),
    "ref is not": lambda n: command(event("x"), needs=(RefIsNot(f"upload-{n}", None),)),
    "unreferenced": lambda n: command(event("x"), needs=(Unreferenced(f"none-{n}"),)),
    "refers to": lambda n: command(event(f"manifest-{n}", ref="present", refers_to=(f"blob-{n}", "base"))),
    "refers to others": lambda n: command(event(f"manifest-{n}", refers_to=(f"upload-{n}",))),
    "content": lambda n: command(event("x", content="digest")),
    "expand to one": lambda n: command(Expand(f"m{n}", "tag", "key", "Gone", 1, "{}", "name")),
    "expand to none": lambda n: command(Expand(f"none-{n}", "tag", "key", "Gone", 1, "{}", "name")),
}


def pages_touched(connection: psycopg.Connection, database: Database) -> int:
    """Pages of tables, indexes and toast that statements looked at so far, in all of the schema."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT 1")
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        row = admin.execute(
            "SELECT sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0))"
            "  FROM pg_statio_user_tables WHERE schemaname = 'log'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_command_costs_the_same_in_a_grown_log(connection: psycopg.Connection, database: Database) -> None:
    """One session, whose plans were cached on tables known to be empty, touches no more pages as the log grows."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("VACUUM ANALYZE")
        # An analysis in between would have the plans made again, and the pages that it reads would be counted.
        tables = admin.execute(
            "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'log'::regnamespace AND c.relkind = 'r'"
        ).fetchall()
        for (table,) in tables:
            admin.execute(f"ALTER TABLE log.{table} SET (autovacuum_enabled = false)")
    with closing(Store(database.app_url)) as store:
        store.put_content(Content("digest", b"", "{}"))
    numbers = itertools.count()

    def costs() -> dict[str, float]:
        """Pages a command of each shape; every command goes alone, so that none waits for the others' cleaning."""
        touched = {}
        chosen = [next(numbers) for _ in range(SAMPLES)]
        for shape, make in SHAPES.items():
            before = pages_touched(connection, database)
            for number in chosen:
                append_batch(connection, [make(number)])
            touched[shape] = (pages_touched(connection, database) - before) / SAMPLES
        return touched

    def grow(rounds: int) -> None:
        for _ in range(rounds):
            append_batch(connection, [make(number) for number in [next(numbers)] for make in SHAPES.values()] * 2)

    costs()
    short = costs()
    grow(GROWN)
    long = costs()
    assert {shape: (short[shape], long[shape]) for shape in SHAPES if long[shape] > 1.5 * short[shape] + 4} == {}
