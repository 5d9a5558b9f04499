"""`tagtrail`: the program's entry point."""

import logging
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

import click

from tagtrail.cli.common import PROBLEM, STOPPED

_COMMANDS = {
    "serve": "tagtrail.cli.serve:serve",
    "api": "tagtrail.cli.api:api",
    "relay": "tagtrail.cli.processes:relay",
    "projector": "tagtrail.cli.processes:projector",
    "keeper": "tagtrail.cli.processes:keeper",
    "config": "tagtrail.cli.configuration:config",
    "db": "tagtrail.cli.database:db",
    "events": "tagtrail.cli.events:events",
    "projections": "tagtrail.cli.projections:projections",
    "history": "tagtrail.cli.history:history",
    "blobs": "tagtrail.cli.blobs:blobs",
}


class _Commands(click.Group):
    """Loads a command only when it is asked for, because loading all takes longer than most commands run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are shown."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one. If there is none of that name, end and name similar ones."""
        if cmd_name not in _COMMANDS:
            near = get_close_matches(cmd_name, _COMMANDS, n=1)
            ctx.fail(f"no such command: {cmd_name}; " + (f"did you mean {near[0]}?" if near else "see --help"))
        module, _, name = _COMMANDS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 well done, 1 a problem or a difference found, 2 wrong usage, 130 stopped by Ctrl-C.",
)
@click.version_option(version("tagtrail"), prog_name="tagtrail")
def cli() -> None:
    """A container registry that remembers.

    `tagtrail serve` starts it. The other commands find the running server's database from --data or TAGTRAIL_DATA.
    """


def main() -> None:
    """Run a command. Ctrl-C, and a closed pipe, end it quietly."""
    # A command itself reports what its database could not do. For servers, which have a log, the log has it as well.
    logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as problem:
        problem.show()
        status = problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = STOPPED
    except BrokenPipeError:
        # Otherwise Python would report the closed pipe again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PROBLEM
    sys.exit(status if isinstance(status, int) else 0)
