"""The store's schema: migrating it, checking that it is current and safe, and knowing which cluster it lives in.

Only `migrate` and `note_cluster` need the owner's role; everything else works as the application's role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import psycopg

from eventstore.connection import connect
from eventstore.types import SchemaOutdated, StoreError, StoreUnavailable

REVISION = "0005"
APPEND_LOCK = 4711
MIGRATION_LOCK = 4712
_CONNECT_TIMEOUT_S = 10
_QUESTION_TIMEOUT_S = 30.0
_alembic_lock = Lock()


@contextmanager
def connected(url: str, statement_timeout_s: float | None = None) -> Iterator[psycopg.Connection]:
    """An autocommit connection for a task of upkeep; raises StoreUnavailable if there is none to be had."""
    with _connect(url, statement_timeout_s) as connection:
        yield connection


def _connect(url: str, statement_timeout_s: float | None = None) -> psycopg.Connection:
    try:
        return connect(
            url,
            name="tagtrail-upkeep",
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            statement_timeout_s=statement_timeout_s,
            # Migrations are files of many statements.
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached: {error}") from error


def _connect_to_migrate(url: str) -> psycopg.Connection:
    connection = _connect(url)
    connection.autocommit = False
    return connection


def migrate(owner_url: str, *, app_role: str) -> str:
    """Bring the schema to the newest revision and return it.

    Any number of processes may do this at once; the others wait and find nothing to do. Raises StoreUnavailable.
    """
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connect_to_migrate(owner_url),
        poolclass=sa.NullPool,
    )
    config = Config()
    config.set_main_option("script_location", _migrations_folder())
    config.attributes["app_role"] = app_role
    # Alembic keeps its context in module globals, so one migration a process at a time.
    with _alembic_lock, engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS log")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return REVISION


def _migrations_folder() -> str:
    spec = find_spec("eventstore.migrations")
    if spec is None or spec.origin is None:
        raise StoreError("the migrations are not installed")
    # A percent sign in the path would be interpolation to the configuration's parser.
    return str(Path(spec.origin).parent).replace("%", "%%")


def current_revision(url: str) -> str | None:
    """The revision that the database stands at, None if it holds no store."""
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        return _revision(connection)


def _revision(connection: psycopg.Connection) -> str | None:
    found = connection.execute("SELECT to_regclass('log.alembic_version') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return None
    row = connection.execute("SELECT version_num FROM log.alembic_version").fetchone()
    return None if row is None else str(row[0])


def check(url: str) -> list[str]:
    """What makes it unsafe to serve with this connection, one sentence each; empty if nothing does (S8).

    Raises SchemaOutdated if the schema is not at `REVISION`.
    """
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        revision = _revision(connection)
        if revision != REVISION:
            stands = "holds no event store" if revision is None else f"stands at schema {revision}"
            raise SchemaOutdated(f"the database {stands}, this program needs schema {REVISION}: run the migration")
        return [*_unsafe_settings(connection), *_unsafe_rights(connection), *_disabled_guards(connection)]


def _unsafe_settings(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"
    ).fetchall()
    return [f"{name} is off: an acknowledged write would not survive a crash; turn it on" for (name,) in rows]


_RIGHTS = """
SELECT 'it is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT 'it may act as role ' || dangerous.rolname FROM pg_roles AS dangerous
 WHERE dangerous.rolname <> current_user
   AND (dangerous.rolsuper OR dangerous.rolname IN ('pg_write_all_data', 'pg_write_server_files',
                                                    'pg_execute_server_program'))
   AND pg_has_role(current_user, dangerous.oid, 'MEMBER')
UNION ALL
SELECT 'it owns ' || owned.what || ' or may act as its owner'
  FROM (SELECT 'schema log' AS what, nspowner AS owner FROM pg_namespace WHERE nspname = 'log'
        UNION ALL
        SELECT 'log.' || relname, relowner FROM pg_class
         WHERE relnamespace = 'log'::regnamespace AND relkind IN ('r', 'p', 'v')
        UNION ALL
        SELECT 'function log.' || proname, proowner FROM pg_proc WHERE pronamespace = 'log'::regnamespace) AS owned
 WHERE pg_has_role(current_user, owned.owner, 'MEMBER')
UNION ALL
SELECT 'it may create objects in schema log' WHERE has_schema_privilege('log', 'CREATE')
UNION ALL
SELECT 'it may ' || privilege || ' log.' || relname
  FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
 WHERE relnamespace = 'log'::regnamespace AND relkind IN ('r', 'p') AND has_table_privilege(oid, privilege)
"""


def _unsafe_rights(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(_RIGHTS).fetchall()
    user = connection.info.user
    return [f"role {user} could change events: {why}; connect as the application's role" for (why,) in rows]


def _disabled_guards(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        """
        SELECT expected.name
          FROM unnest(ARRAY['es_event_append_only', 'es_content_append_only', 'es_content_named']) AS expected (name)
         WHERE NOT EXISTS (SELECT FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
                            WHERE c.relnamespace = 'log'::regnamespace AND t.tgname = expected.name
                              AND t.tgenabled = 'A')
        """
    ).fetchall()
    return [f"trigger {name} is missing or not enabled always: events could be changed" for (name,) in rows]


def note_cluster(url: str) -> int:
    """Record where the log lives, and return its epoch (S10); any role of ours may ask.

    The epoch is raised if the cluster, its timeline, the database or the table changed since they were noted: after a
    restore or a failover positions may have been used twice. Call it at start and on every new connection of whoever
    compares positions, before they are used. The first note of a new log keeps epoch 1.
    """
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        row = connection.execute("SELECT log.es_note_cluster(0::smallint)").fetchone()
    if row is None or row[0] is None:
        raise StoreError("the log has no row in es_log")
    return int(row[0])
