"""Checks that the store's schema is current and safe, and notes in which cluster the log lives."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import psycopg

from eventstore.connection import connect
from eventstore.types import SchemaOutdated, StoreError, StoreUnavailable
from eventstore.window import LEAST, REVISION, Schema

APPEND_LOCK = 4711
MIGRATION_LOCK = 4712
CONNECT_TIMEOUT_S = 10
_QUESTION_TIMEOUT_S = 30.0
NOTHING: Mapping[str, Collection[str]] = MappingProxyType({})
_INSTALLED = "SELECT s.version_num, s.serves_from FROM log.es_schema AS s"
_INSTALLED_BEFORE_WINDOWS = "SELECT v.version_num, v.version_num FROM log.alembic_version AS v"


@contextmanager
def connected(url: str, statement_timeout_s: float | None = None) -> Iterator[psycopg.Connection]:
    """An autocommit connection for a task of upkeep. Raises StoreUnavailable if the database cannot be reached."""
    with _connect(url, statement_timeout_s) as connection:
        yield connection


def _connect(url: str, statement_timeout_s: float | None = None) -> psycopg.Connection:
    try:
        return connect(
            url,
            name="tagtrail-upkeep",
            connect_timeout_s=CONNECT_TIMEOUT_S,
            statement_timeout_s=statement_timeout_s,
            # Migrations are files of many statements, which cannot be prepared.
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached: {error}") from error


def installed(url: str) -> Schema | None:
    """The schema that the database has, None if it holds no store."""
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        return installed_in(connection)


def installed_in(connection: psycopg.Connection) -> Schema | None:
    """As `installed`, on an open connection."""
    found = connection.execute(
        "SELECT to_regclass('log.es_schema') IS NOT NULL, to_regclass('log.alembic_version') IS NOT NULL"
    ).fetchone()
    if found is None or not any(found):
        return None
    row = connection.execute(_INSTALLED if found[0] else _INSTALLED_BEFORE_WINDOWS).fetchone()
    return None if row is None else Schema(*row)


def check(url: str, handled: Mapping[str, Collection[str]] = NOTHING) -> list[str]:
    """List the faults that make it unsafe to serve with this connection, one sentence each.

    `handled` are the kinds of processes to start, each with its features. Raises SchemaOutdated if this program does
    not serve the schema, the schema does not let it serve, or the log uses a feature that it does not have.
    """
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        _require(connection, handled)
        return [*_unsafe_settings(connection), *_unsafe_rights(connection), *_disabled_guards(connection)]


def require(url: str, handled: Mapping[str, Collection[str]]) -> None:
    """Raises SchemaOutdated as `check` does, for a command that does the work of these kinds of processes."""
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        _require(connection, handled)


def _require(connection: psycopg.Connection, handled: Mapping[str, Collection[str]]) -> None:
    found = installed_in(connection)
    if found is None:
        raise SchemaOutdated(f"the database holds no event store, this program needs schema {LEAST}: run the migration")
    refusal = found.refusal()
    if refusal is not None:
        raise SchemaOutdated(refusal)
    for kind, features in handled.items():
        forbids = connection.execute("SELECT log.es_forbids(%s, %s, %s)", (kind, list(features), REVISION)).fetchall()
        if forbids:
            raise SchemaOutdated("; ".join(reason for (reason,) in forbids))


def _unsafe_settings(connection: psycopg.Connection) -> list[str]:
    """Settings that lose acknowledged writes (rule: durable appends)."""
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


# A partition needs a guard of its own: a statement that names it is not told to the guard of the whole table.
_DISABLED_GUARDS = """
SELECT expected.name, expected.relation::text
  FROM (VALUES ('es_event_append_only', 'log.es_event'::regclass),
               ('es_content_append_only', 'log.es_content'::regclass),
               ('es_content_named', 'log.es_content'::regclass),
               ('es_upload_append_only', 'log.es_upload_event'::regclass)
        UNION ALL
        SELECT 'es_upload_append_only', i.inhrelid FROM pg_inherits AS i
         WHERE i.inhparent = 'log.es_upload_event'::regclass) AS expected (name, relation)
 WHERE NOT EXISTS (SELECT FROM pg_trigger AS t
                    WHERE t.tgrelid = expected.relation AND t.tgname = expected.name AND t.tgenabled = 'A')
 ORDER BY 1, 2
"""


def _disabled_guards(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(_DISABLED_GUARDS).fetchall()
    return [
        f"trigger {name} of {table} is missing or not enabled always: events could be changed" for name, table in rows
    ]


def note_cluster(url: str) -> int:
    """Record where the log lives, and return its epoch (rule: epochs); any role of ours may ask.

    The epoch is raised if the cluster, its timeline, the database or the table changed since they were noted: after a
    restore or a failover positions may have been used twice. Call it at the start and on every new connection that is
    used to compare positions, before they are used. The first note of a new log keeps epoch 1.
    """
    with connected(url, _QUESTION_TIMEOUT_S) as connection:
        row = connection.execute("SELECT log.es_note_cluster(0::smallint)").fetchone()
    if row is None or row[0] is None:
        raise StoreError("the log has no row in es_log")
    return int(row[0])
