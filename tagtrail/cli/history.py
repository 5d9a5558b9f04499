"""`tagtrail history`: every change of a repository or a tag."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from domain.names import InvalidName, parse_repository_name, parse_tag
from eventstore.types import StoreError
from projections.models import audit
from projections.reader import Reader
from tagtrail.cli.common import Problem, console, database_of, output_option, print_json, setting_options

_DIGEST_SHOWN = 19


@contextmanager
def reading(values: dict[str, Any], config_file: str | None) -> Iterator[Reader]:
    """A reader of the running server's read models, or of those of the named database."""
    reader = Reader(database_of(values, config_file), pool_size=1)
    try:
        yield reader
    except StoreError as problem:
        raise Problem(str(problem)) from problem
    finally:
        reader.close()


@click.command()
@click.argument("target", metavar="REPO[:TAG]")
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most N changes.")
@click.option("--before", type=click.IntRange(1), metavar="POS", help="Only changes before this position.")
@output_option
@setting_options("data", "database")
def history(target: str, limit: int, before: int | None, output: str, config_file: str | None, **values: Any) -> None:
    """Print every change of a repository or of one tag, newest first."""
    repository, colon, tag = target.partition(":")
    try:
        parse_repository_name(repository)
        if colon:
            parse_tag(tag)
    except InvalidName as problem:
        raise click.UsageError(f"{target!r}: {problem}") from problem
    with reading(values, config_file) as reader:
        rows, more = audit.history(reader, repository, tag=tag or None, before=before, limit=limit)
    if not rows:
        raise Problem(f"nothing is known of {target}")
    if output == "json":
        for row in rows:
            print_json(asdict(row))
        return
    table = Table("position", "time", "actor", "what", "tag", "from", "to")
    for row in rows:
        moment = row.recorded_at.strftime("%Y-%m-%d %H:%M:%S")
        cells = (str(row.position), moment, row.actor, row.what, row.tag or "")
        table.add_row(*cells, _short(row.from_digest), _short(row.to_digest))
    console().print(table)
    if more:
        click.echo(f"older ones: tagtrail history {target} --before {rows[-1].position}")


def _short(digest: str | None) -> str:
    return "" if digest is None else digest[:_DIGEST_SHOWN]
