"""`tagtrail projections`: where the read models stand, whether they are right, and to fold them again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from projections import admin
from projections.models import UnknownModel, models_named
from tagtrail.cli.common import Problem, console, database_of, output_option, print_json, progress_bar, setting_options


@click.group()
def projections() -> None:
    """Look after the read models."""


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except UnknownModel as problem:
        raise click.UsageError(str(problem)) from problem
    except DBAPIError as problem:
        raise Problem(f"the database did not answer: {problem.orig}") from problem


@projections.command()
@output_option
@setting_options("data", "database")
def status(output: str, config_file: str | None, **values: Any) -> None:
    """Print the position of the log and of each read model, and its lag in events."""
    with _problems():
        found = admin.status(database_of(values, config_file))
    if output == "json":
        print_json(asdict(found))
        return
    table = Table("read model", "position", "lag", caption=f"the log stands at {found.head}")
    for each in found.models:
        table.add_row(each.name, str(each.position), str(each.lag))
    console().print(table)


@projections.command()
@click.argument("name", default="all")
@output_option
@setting_options("data", "database")
def verify(name: str, output: str, config_file: str | None, **values: Any) -> None:
    """Compare read models with a fold of the log from nothing; exit status 1 if one differs."""
    database = database_of(values, config_file)
    differs = False
    with _problems(), progress_bar() as bar:
        models_named(name)
        task = bar.add_task("folding the log", total=None)
        for found in admin.verify(database, name, lambda done, total: bar.update(task, completed=done, total=total)):
            differs |= not found.equal
            if output == "json":
                print_json({**asdict(found), "equal": found.equal})
                continue
            state = "equal" if found.equal else "DIFFERS"
            click.echo(f"{found.name:<16} {state} at {found.position}: {found.rows} rows")
            for kind, row in found.samples:
                click.echo(f"  {kind}: {row}")
            if not found.equal:
                click.echo(f"  {found.missing} missing, {found.unexpected} unexpected, {found.differing} differing")
    click.get_current_context().exit(1 if differs else 0)


@projections.command()
@click.argument("name")
@setting_options("data", "database")
def rebuild(name: str, config_file: str | None, **values: Any) -> None:
    """Delete a read model's rows (or those of all) and fold the log again; reads stay right meanwhile."""
    database = database_of(values, config_file)
    with _problems(), progress_bar() as bar:
        models_named(name)
        task = bar.add_task("folding the log", total=None)
        for model, position in admin.rebuild(
            database, name, lambda done, total: bar.update(task, completed=done, total=total)
        ):
            click.echo(f"{model:<16} rebuilt up to position {position}")
