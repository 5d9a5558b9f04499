"""Making roles and a database, and what a start refuses of settings and rights."""

import secrets
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from eventstore import roles, schema
from eventstore.migrating import migrate
from eventstore.store import Store
from eventstore.types import Appended, StoreUnavailable
from tests.eventstore.making import command, event
from tests.postgres import APP_ROLE, Database, Server


@pytest.fixture
def names(postgres_server: Server) -> Iterator[tuple[str, str, str]]:
    """A database, an owner and an application role that do not exist yet; all are gone afterwards."""
    suffix = secrets.token_hex(4)
    database, owner, app = f"made_{suffix}", f"owner_{suffix}", f"app_{suffix}"
    yield database, owner, app
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        admin.execute(f"DROP ROLE IF EXISTS {owner}")
        admin.execute(f"DROP ROLE IF EXISTS {app}")


@pytest.mark.parametrize("superuser", [True, False])
def test_roles_made_by_any_administrator_serve(
    postgres_server: Server, names: tuple[str, str, str], superuser: bool
) -> None:
    """A superuser, or a role that may only create roles and databases, as managed Postgres gives; twice is as once."""
    database, owner, app = names
    admin_url = postgres_server.url("postgres")
    if not superuser:
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute("DROP ROLE IF EXISTS limited_admin")
            connection.execute("CREATE ROLE limited_admin LOGIN CREATEROLE CREATEDB")
        admin_url = postgres_server.url("postgres", "limited_admin")
    for _ in range(2):
        roles.create_roles(admin_url, database, owner, app, passwords=("o", "a"))
        migrate(postgres_server.url(database, owner), app_role=app)
    assert schema.check(postgres_server.url(database, app)) == []
    with closing(Store(postgres_server.url(database, app))) as store:
        assert isinstance(store.append(command(event("a"))), Appended)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_settings_that_lose_acknowledged_writes_are_refused(database: Database, setting: str) -> None:
    """The refusal is a sentence that names the setting."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET {setting} = off")
        try:
            admin.execute("SELECT pg_reload_conf()")
            while admin.execute(f"SHOW {setting}").fetchone() != ("off",):
                pass
            assert any(setting in each for each in schema.check(database.app_url))
        finally:
            admin.execute(f"ALTER SYSTEM RESET {setting}")
            admin.execute("SELECT pg_reload_conf()")
            while admin.execute(f"SHOW {setting}").fetchone() != ("on",):
                pass
    assert schema.check(database.app_url) == []


@pytest.mark.parametrize(
    ("grant", "named"),
    [
        (f"GRANT INSERT ON log.es_event TO {APP_ROLE}", "INSERT log.es_event"),
        (f"GRANT DELETE ON log.es_stream TO {APP_ROLE}", "DELETE log.es_stream"),
        (f"GRANT CREATE ON SCHEMA log TO {APP_ROLE}", "create objects"),
        (f"ALTER TABLE log.es_content OWNER TO {APP_ROLE}", "owns log.es_content"),
    ],
)
def test_rights_that_could_change_events_are_refused(database: Database, grant: str, named: str) -> None:
    """Each is named."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(grant)
    assert any(named in each for each in schema.check(database.app_url))


def test_the_application_cannot_call_what_is_inside(database: Database) -> None:
    """The parts of es_append would run without its lock and checks."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        for call in (
            "log.es_write_events(0::smallint, '{}', 0, now())",
            "log.es_refusal(0::smallint, '{}')",
            "log.es_empty_keys('es_command')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {call}")


def test_a_table_of_the_session_does_not_deceive_the_append(database: Database) -> None:
    """The functions run with the owner's rights, so their search path is pinned."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE es_event (LIKE log.es_event)")
        connection.execute("CREATE TEMPORARY TABLE es_command_ring (LIKE log.es_command_ring)")
        connection.execute("SET search_path = pg_temp, log, public")
        connection.execute(
            "SELECT log.es_append(0::smallint, jsonb_build_array(jsonb_build_object('id', 'x', 'now', now(), 'actor',"
            " 'a', 'request_id', 'r', 'events', '[]'::jsonb)), false)"
        )
        assert connection.execute("SELECT count(*) FROM log.es_command_ring").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM pg_temp.es_command_ring").fetchone() == (0,)


def test_an_absent_server_is_told(database: Database) -> None:
    """Checks of the schema and the migration raise StoreUnavailable."""
    absent = make_conninfo(database.app_url, host="/nonexistent")
    for task in (schema.check, schema.installed, schema.note_cluster):
        with pytest.raises(StoreUnavailable):
            task(absent)
    with pytest.raises(StoreUnavailable):
        migrate(absent, app_role=APP_ROLE)
