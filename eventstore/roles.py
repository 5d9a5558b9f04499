"""The two database roles: an owner that migrates, and the application's, which cannot change events."""

import psycopg
from psycopg import sql

from eventstore.schema import MIGRATION_LOCK, connected


def create_roles(
    admin_url: str,
    database: str,
    owner_role: str,
    app_role: str,
    *,
    passwords: tuple[str, str] | None = None,
) -> None:
    """Create the owner's role, the application's role and the owner's database, if they are missing.

    `admin_url` connects as a role that may create both. `passwords` are the owner's and the application's; with None
    the roles have no passwords, and the server's own authentication decides.
    """
    with connected(admin_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        for place, role in enumerate((owner_role, app_role)):
            _create_role(connection, role, None if passwords is None else passwords[place])
        names = {
            "database": sql.Identifier(database),
            "owner": sql.Identifier(owner_role),
            "app": sql.Identifier(app_role),
        }
        # The owner creates a schema for the application, so it must be able to become that role.
        connection.execute(sql.SQL("GRANT {app} TO {owner} WITH INHERIT FALSE, SET TRUE").format(**names))
        _ensure_membership(connection, owner_role)
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone() is None:
            connection.execute(
                sql.SQL(
                    "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'"
                    " LC_COLLATE 'C' LC_CTYPE 'C'"
                ).format(**names)
            )
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
        connection.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app}").format(**names))


def _create_role(connection: psycopg.Connection, role: str, password: str | None) -> None:
    name = sql.Identifier(role)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    if password is not None:
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))


def _ensure_membership(connection: psycopg.Connection, owner_role: str) -> None:
    """Make the administrator a member of the owner: otherwise only a superuser could give it a database."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is not None and not row[0]:
        connection.execute(
            sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner_role), sql.Identifier(connection.info.user))
        )
