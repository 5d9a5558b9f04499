"""`tagtrail events`: the log itself."""

import json
import time
from pathlib import Path
from typing import Any

import click

from eventstore.store import Store
from eventstore.types import HISTORY, UPLOADS, Recorded, StoreError
from tagtrail.cli.common import Problem, database_of, output_option, print_json, setting_options

BATCH = 500
POLL_S = 0.2


@click.group()
def events() -> None:
    """Read the log."""


@events.command()
@click.option("--repo", metavar="NAME", help="Only events of this repository.")
@click.option("--from", "start", type=click.IntRange(1), metavar="POS", help="Begin at this position.")
@click.option("--uploads", is_flag=True, help="The log of upload sessions, kept for upload_log_days.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option(
    "-n", "last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Without --from: last N."
)
@output_option
@setting_options("data", "database")
def tail(
    repo: str | None,
    start: int | None,
    uploads: bool,
    follow: bool,
    last: int,
    output: str,
    config_file: str | None,
    **values: Any,
) -> None:
    """Print events in the order of the log: the last ones, or all from a position on."""
    store = Store(database_of(values, config_file), pool_size=1)
    try:
        log = UPLOADS if uploads else HISTORY
        after = start - 1 if start is not None else max(0, store.head(log) - last)
        _print_after(store, log, after, repo, output, follow)
    except StoreError as problem:
        raise Problem(str(problem)) from problem
    finally:
        store.close()


@events.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schemas(folder: Path) -> None:
    """Write the JSON schema of each event type's data into a folder, NAME/VERSION.json."""
    from eventstore.feed.schemas import schemas as made

    for name, schema in made().items():
        file = folder / schema["$id"].rpartition("/schemas/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(schema, indent=2) + "\n")
        click.echo(f"{name}: {file}")


def _print_after(store: Store, log: int, after: int, repo: str | None, output: str, follow: bool) -> None:
    while True:
        found = store.read_log(after, BATCH, key=repo, log=log)
        for each in found:
            _print(each, output)
            after = each.position
        if len(found) == BATCH:
            continue
        if not follow:
            return
        time.sleep(POLL_S)


def _print(event: Recorded, output: str) -> None:
    if output == "json":
        print_json(
            {
                "position": event.position,
                "stream": event.stream,
                "version": event.version,
                "type": event.type,
                "recorded_at": event.recorded_at,
                "actor": event.actor,
                "data": json.loads(event.data),
            }
        )
        return
    moment = event.recorded_at.strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{event.position:>8}  {moment}  {event.actor:<12} {event.type:<18} {event.stream}")
