"""`tagtrail projections`: shows, verifies and rebuilds read models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from domain.features import HANDLED
from eventstore import schema
from eventstore.types import StoreError
from projections.all_models import UnknownModel, models_named
from projections.builds import admin, rebuild, verify
from projections.builds.compare import Difference
from projections.engine import parking
from tagtrail.cli.common import Problem, console, database_of, output_option, print_json, progress_bar, setting_options
from tagtrail.options import InvalidValue, duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from projections.builds.admin import Status


@click.group()
def projections() -> None:
    """Look after the read models."""


@contextmanager
def _problems() -> Iterator[None]:
    try:
        yield
    except UnknownModel as problem:
        raise click.UsageError(str(problem)) from problem
    except rebuild.RebuildRefused as problem:
        raise Problem(str(problem)) from problem
    except DBAPIError as problem:
        raise Problem(f"the database did not answer: {problem.orig}") from problem


def _seconds(_: click.Context, __: click.Parameter, given: str) -> float:
    try:
        return duration(0, 365 * 86400)(given)
    except InvalidValue as problem:
        raise click.BadParameter(str(problem)) from problem


keep_option = click.option(
    "--keep",
    "keep_s",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="Time for which the build that was live before is still fed, so that you can swap back to it.",
)


@projections.command()
@click.option("--partitions", is_flag=True, help="Also each partition, with the projector that feeds it.")
@output_option
@setting_options("data", "database")
def status(partitions: bool, output: str, config_file: str | None, **values: Any) -> None:
    """Print the positions of the log, the relay and each read model, their lag, and parked keys."""
    with _problems():
        found = admin.status(database_of(values, config_file))
    if output == "json":
        print_json(asdict(found))
        return
    table = Table(
        *("read model", "build", "state", "position", "lag", "seconds", "owners"),
        caption=f"the log stands at {found.head}, epoch {found.epoch}",
    )
    for each in found.builds:
        owners = {part.owner for part in each.partitions if part.owner is not None}
        state = each.state if each.filled >= each.target else f"{each.state} {each.filled}/{each.target}"
        table.add_row(
            *(each.name, each.id, state, str(each.position), str(each.lag), f"{each.lag_s:.1f}"),
            ", ".join(sorted(owners)) or "-",
        )
    console().print(table)
    if partitions:
        _print_partitions(found)
    relay = found.relay
    if relay.known:
        click.echo(f"relay: published up to {relay.position}, lag {relay.lag}, by {relay.owner or 'nobody'}")
        click.echo(f"relay: uploads published up to {relay.uploads_position}, lag {relay.uploads_lag}")
        if relay.problem is not None:
            click.echo(f"relay: {relay.problem}")
    for parked in found.parked:
        click.echo(
            f"PARKED: {parked.key} in {parked.build} from position {parked.position} ({parked.type}): {parked.problem}"
        )


def _print_partitions(found: "Status") -> None:
    table = Table("build", "partition", "position", "lag", "seconds", "owner")
    for build in found.builds:
        for each in build.partitions:
            table.add_row(
                *(build.id, str(each.partition), str(each.position), str(each.lag), f"{each.lag_s:.1f}"),
                each.owner or "-",
            )
    console().print(table)


def _folded_by_us(values: dict[str, Any], config_file: str | None) -> str:
    """The database, if this program can fold its whole log; an older program would leave events out."""
    database = database_of(values, config_file)
    try:
        schema.require(database, {"projector": HANDLED["projector"]})
    except StoreError as problem:
        raise Problem(str(problem)) from problem
    return database


@projections.command("verify")
@click.argument("name", default="all")
@output_option
@setting_options("data", "database")
def verify_command(name: str, output: str, config_file: str | None, **values: Any) -> None:
    """Compare read models with a fold of the whole log. The exit status is 1 if one differs."""
    database = _folded_by_us(values, config_file)
    differs = False
    with _problems(), progress_bar() as bar:
        models_named(name)
        task = bar.add_task("folding the log", total=None)
        for found in verify.verify(database, name, _advancing(bar, task)):
            differs |= not found.equal
            if output == "json":
                print_json({**asdict(found), "keys": sorted(found.keys), "equal": found.equal})
                continue
            state = "equal" if found.equal else "DIFFERS"
            click.echo(f"{found.name:<16} {state} at {found.position}: {found.total} rows")
            _print_difference(found)
    click.get_current_context().exit(1 if differs else 0)


def _print_difference(found: Difference) -> None:
    for kind, row in found.samples:
        click.echo(f"  {kind}: {row}")
    if not found.equal:
        click.echo(
            f"  in {found.buckets} of 256 buckets: {found.missing} missing, {found.unexpected} unexpected, "
            f"{found.differing} differing"
        )


@projections.command("rebuild")
@click.argument("name")
@keep_option
@setting_options("data", "database")
def rebuild_command(name: str, keep_s: float, config_file: str | None, **values: Any) -> None:
    """Make a read model (or "all") anew from the log and swap it in, while reads and writes go on.

    Ctrl-C does no harm: the same command resumes where this one was broken off.
    """
    database = _folded_by_us(values, config_file)
    with _problems(), progress_bar() as bar:
        models = models_named(name)
        task = bar.add_task("folding the log", total=None)
        rebuild.fold(database, models, progress=_advancing(bar, task))
        bar.remove_task(task)
        for model in models:
            task = bar.add_task(f"comparing {model.name}", total=None)
            done = rebuild.rebuild(database, model, progress=_advancing(bar, task), keep_s=keep_s)
            bar.remove_task(task)
            click.echo(
                f"{model.name:<16} rebuilt up to position {done.position}: {done.rows} rows; "
                f"swapped in {done.swap_s * 1000:.0f} ms"
            )
            if not done.mended.equal:
                click.echo(f"  the build that was live had {done.mended.rows} wrong rows:")
                _print_difference(done.mended)


def _advancing(bar: "Progress", task: "TaskID") -> Callable[[int, int], None]:
    return lambda done, total: bar.update(task, completed=done, total=total)


@projections.command("swap-back")
@click.argument("name")
@keep_option
@setting_options("data", "database")
def swap_back(name: str, keep_s: float, config_file: str | None, **values: Any) -> None:
    """Make the build that was live before the last rebuild live again.

    It is kept for the time of `rebuild --keep`, by default an hour.
    """
    database = _folded_by_us(values, config_file)
    with _problems():
        for model in models_named(name):
            click.echo(f"{model.name:<16} {rebuild.swap_back(database, model, keep_s=keep_s)} is live")


@projections.command("replay-parked")
@output_option
@setting_options("data", "database")
def replay_parked(output: str, config_file: str | None, **values: Any) -> None:
    """Go on with every parked key, in order. The exit status is 1 if one still fails."""
    database = _folded_by_us(values, config_file)
    stuck = False
    with _problems():
        for each in parking.replay(database):
            stuck |= each.problem is not None
            if output == "json":
                print_json(asdict(each))
            else:
                state = "goes on" if each.problem is None else f"stays parked: {each.problem}"
                click.echo(f"{each.key} in {each.build}: {each.events} events folded, {state}")
    click.get_current_context().exit(1 if stuck else 0)
