"""Verify names each kind of fault in log and store, and rebuild writes the rows beside the log as its events say."""

from contextlib import closing

import psycopg
import pytest

from eventstore import verify
from eventstore.store import Store
from eventstore.types import Content, Expand
from tests.eventstore.making import command, event
from tests.postgres import Database


@pytest.fixture
def filled(database: Database) -> Database:
    """A log with every effect that an event can have on what is kept beside it."""
    gone = Expand("m1", "tag-r:", "key", "Gone", 1, "{}", "tag")
    with closing(Store(database.app_url)) as store:
        store.put_content(Content("digest", b"", "{}"))
        store.append(command(event("tag-r:1", ref="m1", state='{"n":1}'), event("tag-r:2", ref="m1")))
        store.append(command(event("m1", ref="present", refers_to=("x", "y"), content="digest")))
        again = (event("m1", refers_to=("y", "z")), event("tag-r:1", ref="m2"), event("tag-r:1", state=None))
        store.append(command(*again))
        store.append(command(event("m1", ref=None, refers_to=()), gone))
        store.append(command(event("m3", ref="present", refers_to=("x",)), event("plain")))
    return database


def tamper(database: Database, statement: str) -> None:
    """Change what no role of ours may change."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("ALTER TABLE log.es_event DISABLE TRIGGER ALL")
        admin.execute("ALTER TABLE log.es_content DISABLE TRIGGER ALL")
        admin.execute(statement)


def test_a_whole_log_has_no_faults(filled: Database) -> None:
    """The log has every kind of effect that an event can have."""
    assert verify.verify(filled.app_url) == []


@pytest.mark.parametrize(
    ("statement", "about"),
    [
        ("DELETE FROM log.es_event WHERE position = 3", "position 4"),
        ("UPDATE log.es_event SET recorded_at = '2000-01-01' WHERE position = 5", "position 5"),
        ("UPDATE log.es_event SET version = 9 WHERE position = 5", "stream tag-r:1"),
        ("UPDATE log.es_event SET prev_ref = 'other' WHERE position = 5", "position 5"),
        ("DELETE FROM log.es_content", "position 3"),
        ("UPDATE log.es_stream SET ref = 'other' WHERE stream = 'm1'", "stream m1"),
        ("UPDATE log.es_stream SET state = '{}' WHERE stream = 'tag-r:1'", "stream tag-r:1"),
        ("UPDATE log.es_stream SET first_position = 9 WHERE stream = 'plain'", "stream plain"),
        ("DELETE FROM log.es_stream WHERE stream = 'plain'", "stream plain"),
        (
            "INSERT INTO log.es_stream (log_id, stream, key, version, first_position, last_position, recorded_at)"
            " VALUES (0, 'ghost', 'key', 1, 1, 1, now())",
            "stream ghost",
        ),
        ("DELETE FROM log.es_ref WHERE target = 'x'", "reference from m3 to x"),
        ("INSERT INTO log.es_ref VALUES (0, 'z', 'm1')", "reference from m1 to z"),
    ],
)
def test_each_fault_is_named(filled: Database, statement: str, about: str) -> None:
    """By the position, stream or reference that it is about."""
    tamper(filled, statement)
    assert about in [each.about for each in verify.verify(filled.app_url)]


def test_rebuild_writes_what_the_events_say(filled: Database) -> None:
    """It mends rows that are wrong, missing or too many."""
    tamper(filled, "UPDATE log.es_stream SET ref = 'other', version = 7")
    tamper(filled, "DELETE FROM log.es_stream WHERE stream = 'plain'")
    tamper(filled, "DELETE FROM log.es_ref")
    tamper(filled, "INSERT INTO log.es_ref VALUES (0, 'z', 'm1')")
    assert verify.verify(filled.app_url)
    verify.rebuild(filled.owner_url)
    assert verify.verify(filled.app_url) == []
