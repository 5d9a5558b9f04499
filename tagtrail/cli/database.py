"""`tagtrail db`: a database of one's own."""

import secrets
from urllib.parse import quote, urlsplit, urlunsplit

import click
import psycopg

from eventstore import roles, schema
from eventstore.types import StoreError
from projections.setup import ensure_tables
from tagtrail.cli.common import Problem

OWNER = "tagtrail_owner"
APPLICATION = "tagtrail_app"


@click.group()
def db() -> None:
    """Prepare a Postgres of your own."""


@db.command()
@click.option("--admin-url", envvar="TAGTRAIL_ADMIN_URL", required=True, metavar="URL", help="Who may make roles.")
@click.option("--database-name", default="tagtrail", show_default=True, help="Database to make.")
@click.option("--owner-password", envvar="TAGTRAIL_OWNER_PASSWORD", help="Else one is made up.")
@click.option("--app-password", envvar="TAGTRAIL_APP_PASSWORD", help="Else one is made up.")
def init(admin_url: str, database_name: str, owner_password: str | None, app_password: str | None) -> None:
    """Make the owner's and the application's roles and the database, and migrate it.

    Safe to run again; both passwords are then set anew. Prints the URLs to use.
    """
    passwords = (owner_password or secrets.token_urlsafe(24), app_password or secrets.token_urlsafe(24))
    try:
        roles.create_roles(admin_url, database_name, OWNER, APPLICATION, passwords=passwords)
        owner_url = _as_role(admin_url, OWNER, passwords[0], database_name)
        app_url = _as_role(admin_url, APPLICATION, passwords[1], database_name)
        schema.migrate(owner_url, app_role=APPLICATION)
        schema.note_cluster(_as_admin(admin_url, database_name))
        ensure_tables(app_url)
    except (StoreError, psycopg.Error) as problem:
        raise Problem(str(problem)) from problem
    click.echo(f"Serve with:    TAGTRAIL_DATABASE={app_url}", err=False)
    click.echo(f"Migrate with:  tagtrail db migrate --owner-url {owner_url}")


@db.command()
@click.option("--owner-url", envvar="TAGTRAIL_OWNER_URL", required=True, metavar="URL", help="The owner's role.")
def migrate(owner_url: str) -> None:
    """Bring the schema to what this program needs."""
    try:
        revision = schema.migrate(owner_url, app_role=APPLICATION)
    except (StoreError, psycopg.Error) as problem:
        raise Problem(str(problem)) from problem
    click.echo(f"The schema is at {revision}.")


def _as_role(admin_url: str, role: str, password: str, database: str) -> str:
    parts = urlsplit(admin_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{host}", path=f"/{database}"))


def _as_admin(admin_url: str, database: str) -> str:
    return urlunsplit(urlsplit(admin_url)._replace(path=f"/{database}"))
