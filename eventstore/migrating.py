"""Bringing a database's schema to the newest revision: the only task that needs the owner's role.

Loading it takes a while (Alembic, SQLAlchemy), so code that may not need it imports it only where it does.
"""

import logging
import time
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from eventstore.connection import connect
from eventstore.migrations import functions
from eventstore.schema import APPEND_LOCK, CONNECT_TIMEOUT_S, MIGRATION_LOCK, installed_in
from eventstore.types import HISTORY, UPLOADS, StoreError, StoreUnavailable
from eventstore.window import BEFORE_WINDOWS, REVISION

# All later statements wait behind one that waits for its lock. So a migration gives up soon and is tried again later,
# whole. It is also less than the second after which Postgres looks for deadlocks and might end a reader.
LOCK_TIMEOUT_S = 0.5
LOCKS_WITHIN_S = 60.0
_PAUSE_S = 0.2
_PAUSE_MAX_S = 2.0
_NOT_LOCKED = ("55P03", "40P01")
# Alembic keeps its context in module globals, so one migration a process at a time.
_alembic = Lock()
_log = logging.getLogger(__name__)


def migrate(owner_url: str, *, app_role: str, locks_within_s: float = LOCKS_WITHIN_S) -> str:
    """Bring the schema to the newest revision and return where it stands: further on, if a newer program was there.

    Any number of processes may do this at once, also while others serve; those that come later find nothing to do.
    Raises StoreUnavailable if the database cannot be reached, or does not give the locks in time, and StoreError if it
    refuses, as it does for a role that is not the owner; then nothing was changed.
    """
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: _connect(owner_url), poolclass=sa.NullPool)
    deadline = time.monotonic() + locks_within_s
    pause = _PAUSE_S
    while True:
        try:
            with engine.begin() as connection:
                return _migrate(connection, app_role)
        except sa.exc.DBAPIError as error:
            problem = error.orig
            if not isinstance(problem, psycopg.Error) or problem.sqlstate not in _NOT_LOCKED:
                raise StoreError(f"the migration failed, and changed nothing: {problem}") from error
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the migration did not get its locks within {locks_within_s:g} s, and changed nothing: "
                    f"{problem.diag.message_primary}; end long transactions and vacuums (pg_stat_activity shows them), "
                    "then try again"
                ) from error
            _log.warning("the migration waits for locks, trying again: %s", problem.diag.message_primary)
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MAX_S)


def _connect(url: str) -> psycopg.Connection:
    try:
        # Migrations are files of many statements, which cannot be prepared.
        connection = connect(
            url,
            name="tagtrail-migration",
            connect_timeout_s=CONNECT_TIMEOUT_S,
            statement_timeout_s=None,
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached: {error}") from error
    connection.autocommit = False
    return connection


def _migrate(connection: sa.Connection, app_role: str) -> str:
    """One attempt, in the transaction of the connection."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    stands = installed_in(driver)
    if stands is not None and stands.revision >= REVISION:
        return stands.revision
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(1000 * LOCK_TIMEOUT_S)}")
    # No append is under way meanwhile, so none waits for a table of which it holds another one.
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPEND_LOCK}, {HISTORY})")
    if connection.exec_driver_sql("SELECT to_regclass('log.es_upload_part') IS NOT NULL").scalar_one():
        # Sessions are appended under the lock of their log alone. In the order of appends (rule: two logs).
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPEND_LOCK}, {UPLOADS})")
    scripts = upgrade_tables(connection, app_role)
    functions.install(connection, app_role)
    _raise_serves_from(connection, scripts)
    return REVISION


def upgrade_tables(connection: sa.Connection, app_role: str, upto: str = REVISION) -> ScriptDirectory:
    """Run the revisions, without the functions that come after the newest; by itself only where roads are tested."""
    _make_table_of_revisions(connection)
    config = Config()
    config.set_main_option("script_location", migrations_folder())
    config.attributes.update(app_role=app_role, connection=connection)
    with _alembic:
        command.upgrade(config, upto)
    return ScriptDirectory.from_config(config)


def _make_table_of_revisions(connection: sa.Connection) -> None:
    """Make log.es_schema where it is missing.

    Programs that know no window look for their only revision in `log.alembic_version`. So revisions are counted in a
    table of another name from there on, and the old one says what those programs look for as long as they may serve.
    """
    connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS log")
    counted, before = connection.exec_driver_sql(
        "SELECT to_regclass('log.es_schema') IS NOT NULL, to_regclass('log.alembic_version') IS NOT NULL"
    ).one()
    if counted:
        return
    connection.exec_driver_sql(
        "CREATE TABLE log.es_schema (version_num varchar(32) PRIMARY KEY,"
        f" serves_from varchar(32) NOT NULL DEFAULT '{BEFORE_WINDOWS}')"
    )
    if before:
        connection.exec_driver_sql("INSERT INTO log.es_schema SELECT version_num FROM log.alembic_version")


def _raise_serves_from(connection: sa.Connection, scripts: ScriptDirectory) -> None:
    """Write down which programs may serve the schema as it is now: those that every revision lets go on."""
    least = max(getattr(each.module, "serves_from", BEFORE_WINDOWS) for each in scripts.walk_revisions())
    connection.execute(sa.text("SELECT log.es_raise_serves_from(:least)"), {"least": least})


def migrations_folder() -> str:
    """Alembic's configuration with the place of the revisions."""
    spec = find_spec("eventstore.migrations")
    if spec is None or spec.origin is None:
        raise StoreError("the migrations are not installed")
    # A percent sign in the path would be interpolation to the configuration's parser.
    return str(Path(spec.origin).parent).replace("%", "%%")
