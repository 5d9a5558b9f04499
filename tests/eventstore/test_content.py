"""Content that a command brings: it is stored with the append if it is small, before it if it is large."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore.codec import CARRIED_BYTES_MAX
from eventstore.store import Store
from eventstore.types import ENSURE, Appended, AppendRejected, Content, RefIs, Refused
from tests.eventstore.making import append_batch, command, event
from tests.postgres import Database

LATER = datetime.now(UTC) + timedelta(days=2)
EVERY_BYTE = bytes(range(256))
# Annotations hold what clients write.
FACTS = json.dumps({"annotations": {'ü"\\': "\ud83d\ude00'\n\x7f%s"}})


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store of its own."""
    made = Store(database.app_url)
    yield made
    made.close()


def sweep(database: Database) -> tuple[int, int]:
    """The number of new contents that a sweep of the far future looks at, and of those that it deletes."""
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        row = owner.execute("SELECT looked_at, swept FROM log.es_sweep_new_content(%s, 100)", (LATER,)).fetchone()
        assert row is not None
        return row[0], row[1]


def test_small_content_is_stored_by_the_append_that_names_it(store: Store, database: Database) -> None:
    """Its bytes and facts are as they were given, and no sweep has to look at it."""
    content = Content("d", EVERY_BYTE, FACTS)
    assert isinstance(store.append(command(event("a", content="d"), contents=(content,))), Appended)
    found = store.get_content("d")
    assert found is not None
    assert (found.body, json.loads(found.facts)) == (EVERY_BYTE, json.loads(FACTS))
    assert sweep(database) == (0, 0)
    assert store.get_content("d") == found


def test_a_refused_command_leaves_no_content(store: Store) -> None:
    """The failed condition is told, and the content that it needs and does not bring."""
    brought = Content("d", b"bytes", "{}")
    needs = (RefIs((("nobody", "live"),)),)
    refused = store.append(
        command(event("a", content="d"), event("b", content="elsewhere"), needs=needs, contents=(brought,))
    )
    assert refused == Refused(failed_conditions=(0,), missing_content=("elsewhere",))
    assert store.get_content("d") is None
    assert store.head() == 0


def test_content_that_is_there_stays_as_it_is(store: Store, database: Database) -> None:
    """It may have come before or within the same batch; a digest has one content for ever."""
    store.put_content(Content("before", b"first", "{}"))
    commands = [
        command(event(name, content=digest), contents=(Content(digest, body, "{}"),))
        for name, digest, body in (("a", "before", b"second"), ("b", "d", b"first"), ("c", "d", b"second"))
    ]
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        outcomes = append_batch(connection, commands)
    assert [type(each) for each in outcomes] == [Appended] * 3
    assert [each and each.body for each in map(store.get_content, ("before", "d"))] == [b"first", b"first"]


def test_large_content_is_stored_before_the_append(store: Store, database: Database) -> None:
    """Nobody waits for it under the append's lock: of a refused command it stays, until a sweep."""
    content = Content("d", b"x" * CARRIED_BYTES_MAX, "{}")
    needs = (RefIs((("nobody", "live"),)),)
    assert isinstance(store.append(command(event("a", content="d"), needs=needs, contents=(content,))), Refused)
    assert store.get_content("d") == content
    assert isinstance(store.append(command(event("a", content="d"), contents=(content,))), Appended)
    assert sweep(database) == (1, 0)


def test_content_of_an_event_that_is_dropped_is_left_to_the_sweep(store: Store, database: Database) -> None:
    """An ensured event may be dropped, and then nothing names the content: it is stored as new, as before an append."""
    ensured = event("a", ENSURE, ref="live", content="d")
    assert isinstance(store.append(command(event("a", ref="live"))), Appended)
    assert isinstance(store.append(command(ensured, contents=(Content("d", b"bytes", "{}"),))), Appended)
    assert sweep(database) == (1, 1)
    assert store.get_content("d") is None


def test_facts_that_the_database_does_not_take_fail_alone(store: Store) -> None:
    """No other command of the batch is spoiled, and nothing of this one stands."""
    with pytest.raises(AppendRejected):
        store.append(command(event("a", content="d"), contents=(Content("d", b"", "no JSON"),)))
    assert isinstance(store.append(command(event("a"))), Appended)
    assert store.get_content("d") is None
    assert store.head() == 1
