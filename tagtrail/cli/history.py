"""`tagtrail history`: the changes of a repository, of a tag, or of the whole registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich.table import Table

from domain.names import InvalidName, parse_repository_name, parse_tag
from eventstore.reader import Reader as StoreReader
from eventstore.types import StoreError
from projections.models import audit
from projections.models.audit import AuditRow, Wanted
from projections.reader import Reader
from tagtrail.cli.common import Problem, console, database_of, moment, output_option, print_json, setting_options

TIMEOUT_S = 10.0
_DIGEST_SHOWN = 19


@contextmanager
def reading(values: dict[str, Any], config_file: str | None) -> Iterator[Reader]:
    """A reader of the running server's read models, or of those of the named database."""
    connections = StoreReader(database_of(values, config_file), pool_size=1, timeout_s=TIMEOUT_S, name="tagtrail-cli")
    try:
        yield Reader(lambda: connections)
    except StoreError as problem:
        raise Problem(str(problem)) from problem
    finally:
        connections.close()


@click.command()
@click.argument("target", metavar="[REPO[:TAG]]", required=False)
@click.option("--actor", metavar="NAME", help="Only changes by this user.")
@click.option("--what", multiple=True, type=click.Choice(audit.KINDS), help="Only this kind; may be given again.")
@click.option(
    "--since", callback=moment, metavar="TIME", help="Only from this date or time on; UTC unless it says otherwise."
)
@click.option("--until", callback=moment, metavar="TIME", help="Only before this date or time.")
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most N changes.")
@click.option("--before", type=click.IntRange(1, 2**62), metavar="POS", help="Only changes before this position.")
@output_option
@setting_options("data", "database")
def history(
    target: str | None,
    actor: str | None,
    what: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: int | None,
    output: str,
    config_file: str | None,
    **values: Any,
) -> None:
    """Print the changes of a repository, of one tag, or of the whole registry, newest first."""
    repository, tag = _target(target)
    if actor is not None and not actor.isprintable():
        raise click.BadParameter("must be a name", param_hint="--actor")
    wanted = Wanted(repository, tag, actor, what, since, until)
    with reading(values, config_file) as reader:
        rows, following = _found(reader, wanted, before, limit)
    if not rows:
        filtered = wanted != Wanted(repository, tag) or target is None
        raise Problem("there is no such change" if filtered else f"nothing is known of {target}")
    if output == "json":
        for row in rows:
            print_json(asdict(row))
        return
    console().print(_table(rows, repository is None))
    if following is not None:
        click.echo(f"older ones: the same with --before {following}")


def _target(text: str | None) -> tuple[str | None, str | None]:
    """Repository and tag. Raises UsageError for what is no name."""
    if text is None:
        return None, None
    repository, colon, tag = text.partition(":")
    try:
        parse_repository_name(repository)
        if colon:
            parse_tag(tag)
    except InvalidName as problem:
        raise click.UsageError(f"{text!r}: {problem}") from problem
    return repository, tag or None


def _found(reader: Reader, wanted: Wanted, before: int | None, limit: int) -> tuple[list[AuditRow], int | None]:
    """So many changes, however many pages they are spread over, and where the older ones begin."""
    rows: list[AuditRow] = []
    while True:
        page = audit.history(reader, wanted, before=before, limit=limit - len(rows))
        rows += page.rows
        before = page.before
        if before is None or len(rows) == limit:
            return rows, before


def _table(rows: list[AuditRow], with_repository: bool) -> Table:
    where = ("repository",) if with_repository else ()
    table = Table("position", "time", "actor", "what", *where, "tag", "from", "to")
    for row in rows:
        time = row.recorded_at.strftime("%Y-%m-%d %H:%M:%S")
        cells = (str(row.position), time, row.actor, row.what, *((row.repository,) if with_repository else ()))
        table.add_row(*cells, row.tag or "", _short(row.from_digest), _short(row.to_digest))
    return table


def _short(digest: str | None) -> str:
    return "" if digest is None else digest[:_DIGEST_SHOWN]
