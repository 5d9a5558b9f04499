"""Schema and roles: what `serve` refuses, and that what is kept beside the log says what the log says."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from eventstore import schema, verify
from eventstore.migrating import migrate
from eventstore.types import SchemaOutdated
from eventstore.window import REVISION, Schema
from tests.api import Registry
from tests.postgres import APP_ROLE, Database


def test_the_application_role_is_safe(database: Database) -> None:
    """The check finds nothing that speaks against serving with it."""
    assert schema.check(database.app_url) == []
    assert schema.installed(database.app_url) == Schema(REVISION, "0005")


def test_roles_that_could_change_events_are_refused(database: Database) -> None:
    """The owner and a superuser are such roles."""
    for url in (database.owner_url, database.admin_url):
        assert any("could change events" in each for each in schema.check(url))


def test_a_disabled_guard_is_noticed(database: Database) -> None:
    """A trigger that was switched off."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE log.es_event DISABLE TRIGGER ALL")
    assert any("es_event_append_only" in each for each in schema.check(database.app_url))


def test_an_empty_database_is_outdated(database: Database) -> None:
    """The error says what to do."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA log CASCADE")
    with pytest.raises(SchemaOutdated, match="run the migration"):
        schema.check(database.app_url)


def test_migrations_at_once_are_safe(database: Database) -> None:
    """Those that come later find nothing to do."""
    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(lambda _: migrate(database.owner_url, app_role=APP_ROLE), range(4)))
    assert revisions == [REVISION] * 4


def test_the_epoch_rises_with_the_cluster(database: Database) -> None:
    """Positions may have been used twice in another cluster."""
    epoch = schema.note_cluster(database.admin_url)
    assert schema.note_cluster(database.admin_url) == epoch
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_log SET system_identifier = 'another'")
    assert schema.note_cluster(database.admin_url) == epoch + 1


def test_what_stands_beside_the_log_equals_its_events(registry: Registry, database: Database) -> None:
    """es_stream and es_ref against a recomputation; a tampered row is named."""
    for number in range(3):
        registry.push("u/app", f"t{number}", b"layer")
    registry.delete("/v2/u/app/manifests/t0")
    assert verify.verify(database.app_url) == []
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_stream SET ref = 'wrong' WHERE stream = 'tag-u/app:t1'")
    assert any("tag-u/app:t1" in str(each) for each in verify.verify(database.app_url))
