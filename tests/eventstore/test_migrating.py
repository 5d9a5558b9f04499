"""Migrations: what a revision may rely on, who may serve what, and locks that others hold."""

import threading
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from eventstore import schema
from eventstore.migrating import LOCK_TIMEOUT_S, migrate, migrations_folder, upgrade_tables
from eventstore.migrations import functions
from eventstore.types import UPLOADS, StoreUnavailable
from eventstore.window import LEAST, REVISION, Schema
from tests.postgres import APP_ROLE, Database, Server, drop_database, empty_database
from tests.waiting import eventually

FIRST_WITH_WINDOW = "0006"


@pytest.fixture
def empty(postgres_server: Server) -> Iterator[Database]:
    """A database to which no migration came yet."""
    made = empty_database(postgres_server)
    yield made
    drop_database(postgres_server, made)


def scripts() -> ScriptDirectory:
    """The revisions."""
    config = Config()
    config.set_main_option("script_location", migrations_folder())
    return ScriptDirectory.from_config(config)


def as_owner(database: Database) -> sa.Engine:
    """Connections as a migration has them."""
    return sa.create_engine(database.owner_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)


def tables(database: Database, upto: str) -> None:
    """Bring the tables to a revision, and no function."""
    with as_owner(database).begin() as connection:
        upgrade_tables(connection, APP_ROLE, upto)


def test_the_newest_revision_is_the_one_that_this_program_knows() -> None:
    """It is written by hand, so that a check need not load Alembic."""
    assert scripts().get_current_head() == REVISION
    assert FIRST_WITH_WINDOW <= LEAST <= REVISION


def test_functions_change_only_with_a_revision() -> None:
    """Processes judge by revisions whether they fit, so a released revision must not get other functions later."""
    head = scripts().get_revision(REVISION)
    assert head.module.functions == functions.checksum(), (
        "the SQL of functions changed: make a new revision (one without tables, if none changed) that names this "
        f'checksum, functions = "{functions.checksum()}"; if the newest revision is not released yet, name it there'
    )


def test_every_revision_says_who_may_go_on_beside_it() -> None:
    """Its `serves_from` is a revision that stands before it, or its own."""
    for each in scripts().walk_revisions():
        if each.revision >= FIRST_WITH_WINDOW:
            assert "0005" <= each.module.serves_from <= each.revision
            assert len(each.module.functions) == 16


def test_revisions_change_tables_only(empty: Database) -> None:
    """None of them makes or needs a function, so each stays right whatever today's functions are."""
    tables(empty, REVISION)
    with psycopg.connect(empty.admin_url) as connection:
        made = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace IN ('log'::regnamespace, 'feed'::regnamespace)"
        ).fetchall()
    assert made == []


@pytest.mark.parametrize("revision", sorted(each.revision for each in scripts().walk_revisions())[:-1])
def test_the_road_to_the_newest_revision_begins_anywhere(empty: Database, revision: str) -> None:
    """Tables of any revision, then the rest in a second run."""
    tables(empty, revision)
    assert migrate(empty.owner_url, app_role=APP_ROLE) == REVISION
    assert schema.check(empty.app_url) == []


def test_an_older_program_leaves_a_newer_schema_alone(database: Database) -> None:
    """Its migration neither fails nor installs older functions; whether it may serve is another question."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_schema SET version_num = '9998'")
        connection.execute("DROP VIEW log.es_ref_rebuilt")
        assert migrate(database.owner_url, app_role=APP_ROLE) == "9998"
        assert connection.execute("SELECT to_regclass('log.es_ref_rebuilt')").fetchone() == (None,)


def test_programs_from_before_the_window_find_their_revision(database: Database) -> None:
    """They ask for exactly this one, at start and at readyz."""
    with psycopg.connect(database.app_url) as connection:
        assert connection.execute("SELECT version_num FROM log.alembic_version").fetchall() == [("0005",)]


def test_a_migration_that_takes_something_away_turns_older_programs_out(database: Database) -> None:
    """Those with a window by `serves_from`, those without by what they look for; it is never lowered."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("SELECT log.es_raise_serves_from('0007')")
        connection.execute("SELECT log.es_raise_serves_from('0006')")
        assert schema.installed(database.app_url) == Schema(REVISION, "0007")
        assert connection.execute("SELECT version_num FROM log.alembic_version").fetchall() == [("0007",)]


@pytest.mark.parametrize(
    ("stands", "refusal"),
    [
        (Schema("0008", "0005"), None),
        (Schema("0006", "0005"), None),
        (Schema("0005", "0005"), "needs schema 0006: run the migration"),
        (Schema("0009", "0007"), None),
        (Schema("0009", "0008"), None),
        (Schema("0010", "0009"), "needs a program that knows schema 0009; this one knows 0008: install a newer"),
    ],
)
def test_a_program_serves_a_window_of_schemas(stands: Schema, refusal: str | None) -> None:
    """One that knows 0008 and needs 0006 at least."""
    found = stands.refusal(least="0006", known="0008")
    assert found is refusal is None or (refusal or "") in (found or "")
    assert (found is None) is (refusal is None)


def test_a_migration_waits_for_locks_in_small_pieces(empty: Database) -> None:
    """A long transaction holds a table that a revision changes; reads of another session go on, then it is done."""
    tables(empty, "0003")
    outcome: list[str] = []
    with psycopg.connect(empty.admin_url) as holder, psycopg.connect(empty.admin_url, autocommit=True) as reader:
        holder.execute("SELECT count(*) FROM log.es_content")
        thread = threading.Thread(target=lambda: outcome.append(migrate(empty.owner_url, app_role=APP_ROLE)))
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tagtrail-migration'"
            " AND wait_event_type = 'Lock'"
        )
        with psycopg.connect(empty.admin_url, autocommit=True) as watcher:
            eventually(lambda: watcher.execute(waiting).fetchone() == (1,))
        # It queues behind the migration, which gives up soon: 5 s would be for ever.
        reader.execute("SET lock_timeout = '5s'")
        reader.execute("SELECT count(*) FROM log.es_content")
        assert outcome == []
        holder.rollback()
        thread.join(120)
    assert outcome == [REVISION]


def test_functions_are_installed_beside_a_vacuum(database: Database) -> None:
    """A vacuum of a large table takes hours, and Postgres ends one only for who has waited a second."""
    with psycopg.connect(database.admin_url) as vacuum, as_owner(database).begin() as connection:
        vacuum.execute("LOCK TABLE log.es_event, log.es_content IN SHARE UPDATE EXCLUSIVE MODE")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * LOCK_TIMEOUT_S)}")
        functions.install(connection, APP_ROLE)
    assert schema.check(database.app_url) == []


def test_a_guard_that_was_switched_off_is_on_again_with_the_functions(database: Database) -> None:
    """It is made again only where it is not as it must be."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE log.es_event DISABLE TRIGGER es_event_append_only")
        connection.execute("DROP TRIGGER es_content_named ON log.es_content")
    assert len(schema.check(database.app_url)) == 2
    with as_owner(database).begin() as connection:
        functions.install(connection, APP_ROLE)
    assert schema.check(database.app_url) == []


def test_a_migration_waits_for_sessions_too(database: Database) -> None:
    """They are appended under the lock of their own log alone."""
    with psycopg.connect(database.admin_url) as holder:
        holder.execute("UPDATE log.es_schema SET version_num = '0012'")
        holder.commit()
        holder.execute("SELECT pg_advisory_xact_lock(%s, %s)", (schema.APPEND_LOCK, UPLOADS))
        with pytest.raises(StoreUnavailable, match="pg_stat_activity"):
            migrate(database.owner_url, app_role=APP_ROLE, locks_within_s=0)


def test_a_migration_that_gets_no_lock_says_so_and_changes_nothing(empty: Database) -> None:
    """StoreUnavailable with what to do."""
    with psycopg.connect(empty.admin_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s, 0)", (schema.APPEND_LOCK,))
        with pytest.raises(StoreUnavailable, match="pg_stat_activity"):
            migrate(empty.owner_url, app_role=APP_ROLE, locks_within_s=0.1)
    assert schema.installed(empty.admin_url) is None
