"""`tagtrail db`: prepares and maintains a database of your own."""

import secrets
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import click
import psycopg
from psycopg.conninfo import make_conninfo

from eventstore import roles, schema
from eventstore.store import utc_now
from eventstore.types import StoreError
from eventstore.upkeep import Upkeep
from eventstore.window import REVISION
from tagtrail.cli.common import Problem, database_of, moment, setting_options
from tagtrail.config import mask_url

OWNER = "tagtrail_owner"
APPLICATION = "tagtrail_app"


@click.group()
def db() -> None:
    """Prepare a Postgres of your own."""


@db.command()
@click.option(
    "--admin-url",
    envvar="TAGTRAIL_ADMIN_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="A role that may create roles and databases.",
)
@click.option("--database-name", default="tagtrail", show_default=True, metavar="NAME", help="Database to make.")
@click.option("--owner-password", envvar="TAGTRAIL_OWNER_PASSWORD", show_envvar=True, help="Without it one is made.")
@click.option("--app-password", envvar="TAGTRAIL_APP_PASSWORD", show_envvar=True, help="Without it one is made.")
@click.option("--new-passwords", is_flag=True, help="Replace the passwords of roles that are there already.")
def init(
    admin_url: str,
    database_name: str,
    owner_password: str | None,
    app_password: str | None,
    new_passwords: bool,
) -> None:
    """Make the owner's and the application's roles and the database, and migrate it.

    Prints the URLs to use, passwords included, once. It is safe to run again: existing roles keep their passwords
    unless you give new ones or say --new-passwords.
    """
    from eventstore.migrating import migrate as bring_up

    if urlsplit(admin_url).scheme not in ("postgresql", "postgres"):
        raise click.UsageError("--admin-url: must be a URL such as postgresql://postgres:PASSWORD@HOST:5432/postgres")
    try:
        keep = not (owner_password or app_password or new_passwords) and _roles_stand(admin_url)
        passwords = (owner_password or secrets.token_urlsafe(24), app_password or secrets.token_urlsafe(24))
        roles.create_roles(admin_url, database_name, OWNER, APPLICATION, passwords=None if keep else passwords)
        bring_up(make_conninfo(admin_url, dbname=database_name, options=f"-c role={OWNER}"), app_role=APPLICATION)
        schema.note_cluster(make_conninfo(admin_url, dbname=database_name))
    except (StoreError, psycopg.Error) as problem:
        raise Problem(str(problem)) from problem
    click.echo(f"The database {database_name} is ready, its schema is at {REVISION}.")
    if keep:
        click.echo("Both roles were there and keep their passwords (--new-passwords replaces them).")
        return
    click.echo("Keep these two; passwords that were made up are not shown again.")
    for what, role, password, given in (
        ("serve with:    TAGTRAIL_DATABASE=", APPLICATION, passwords[1], app_password),
        ("migrate with:  TAGTRAIL_OWNER_URL=", OWNER, passwords[0], owner_password),
    ):
        url = _as_role(admin_url, role, password, database_name)
        # A password that was given is known already, and output may end in a log.
        click.echo(f"  {what}{mask_url(url) if given else url}")


@db.command()
@click.option(
    "--owner-url",
    envvar="TAGTRAIL_OWNER_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The database, as the owner's role (`tagtrail db init` printed it).",
)
def migrate(owner_url: str) -> None:
    """Bring the schema to the revision that this program needs. Run this before you start a new version."""
    from eventstore.migrating import migrate as bring_up

    try:
        revision = bring_up(owner_url, app_role=APPLICATION)
    except (StoreError, psycopg.Error) as problem:
        raise Problem(str(problem)) from problem
    click.echo(f"The schema is at {revision}.")


def _roles_stand(admin_url: str) -> bool:
    with schema.connected(admin_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_roles WHERE rolname = ANY(%s)", ([OWNER, APPLICATION],)
        ).fetchone()
    return row is not None and row[0] == 2


def _as_role(admin_url: str, role: str, password: str, database: str) -> str:
    parts = urlsplit(admin_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{host}", path=f"/{database}"))


@db.command("erase-addresses")
@click.option(
    "--before",
    required=True,
    metavar="TIME",
    callback=moment,
    help="Date or time; UTC unless it says otherwise.",
)
@setting_options("database", "data")
def erase_addresses(before: datetime, config_file: str | None, **values: Any) -> None:
    """Erase, now, the addresses and user agents of clients that were recorded up to a moment.

    A server erases them by itself after client_address_days. The history still tells who did what.
    """
    upkeep = Upkeep(database_of(values, config_file), utc_now)
    erased, more = 0, True
    try:
        while more:
            step = upkeep.erase_clients(before)
            erased, more = erased + step.removed, step.more
    except StoreError as problem:
        raise Problem(f"{erased} were erased, then: {problem}") from problem
    finally:
        upkeep.close()
    click.echo(f"The addresses of {erased} commands were erased.")
