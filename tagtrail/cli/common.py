"""Parts that commands share: options of settings, the running server's database, output, exit codes."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from protocol.moments import parse_moment
from tagtrail.config import Resolved, Settings, WrongOption, resolve
from tagtrail.options import OPTIONS
from tagtrail.server.lock import is_held, settings_file

if TYPE_CHECKING:
    from rich.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

PROBLEM = 1
STOPPED = 130


class Problem(click.ClickException):
    """A problem that the user can solve; the exit status is 1."""


def setting_options(*names: str) -> Callable[[F], F]:
    """The flags of the named options, or of all. A flag that was not given is left out of the values."""

    def decorate(command: F) -> F:
        wanted = [each for each in OPTIONS if each.flag and (not names or each.name in names)]
        for option in reversed(wanted):
            flag = option.flag_name
            if option.switch:
                declare = click.option(f"{flag}/--no-{flag[2:]}", option.name, default=None, help=option.help)
            else:
                declare = click.option(
                    flag,
                    option.name,
                    metavar=option.metavar,
                    default=None,
                    multiple=option.many,
                    help=f"{option.help} [{option.variable}]",
                )
            command = declare(command)
        return click.option("--config", "config_file", metavar="FILE", help="TOML file of options. [TAGTRAIL_CONFIG]")(
            command
        )

    return decorate


def resolved(values: Mapping[str, Any], config_file: str | None) -> Resolved:
    """The settings of a command line. A wrong one ends the program with status 2 and is named."""
    flags = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        return resolve(flags, config_file=config_file)
    except WrongOption as problem:
        raise click.UsageError(str(problem)) from problem


def database_of(values: Mapping[str, Any], config_file: str | None) -> str:
    """The database of the options, or else that of the server that runs on the data folder."""
    # A command that only asks does not listen, so the address in the server's options does not matter.
    settings = resolved({**values, "insecure_open": True}, config_file).settings
    if settings.database is not None:
        return settings.database
    try:
        held = is_held(settings.data)
    except OSError as problem:
        raise Problem(f"{settings.data}: {problem.strerror}; run this as the user that runs the server") from problem
    if held:
        try:
            return Settings.from_json(settings_file(settings.data).read_text()).database_url
        except (FileNotFoundError, WrongOption) as problem:
            raise Problem(f"the server on {settings.data} is still starting; try again") from problem
    raise Problem(
        f"no server runs on {settings.data}: start it with `tagtrail serve --data {settings.data}`, "
        "or name a --database"
    )


def moment(_: click.Context, __: click.Parameter, given: str | None) -> datetime | None:
    """The callback of an option that takes a date or a time."""
    try:
        return None if given is None else parse_moment(given)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from problem


def console() -> Console:
    """The console for tables."""
    shown = Console(soft_wrap=True)
    # A table is never cut where it goes into a file or a pipe.
    return shown if shown.is_terminal else Console(soft_wrap=True, width=200)


def progress_bar() -> "Progress":
    """A progress bar on standard error, removed at the end; none if standard error is no terminal."""
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    shown = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), Rate(), TimeRemainingColumn())
    return Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal)


def print_json(value: Any) -> None:
    """One JSON object on one line."""
    click.echo(json.dumps(value, default=_plain, separators=(",", ":")))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of output."
)
