"""`tagtrail`: the program's entry point."""

import os
import sys
from importlib.metadata import version

import click

from tagtrail.cli.common import PROBLEM, STOPPED
from tagtrail.cli.configuration import config
from tagtrail.cli.database import db
from tagtrail.cli.events import events
from tagtrail.cli.history import blobs, history
from tagtrail.cli.projections import projections
from tagtrail.cli.serve import serve


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 well done, 1 a problem or a difference found, 2 wrong usage, 130 stopped by Ctrl-C.",
)
@click.version_option(version("tagtrail"), prog_name="tagtrail")
def cli() -> None:
    """A container registry that remembers.

    `tagtrail serve` starts it. The other commands find the running server's database from --data or TAGTRAIL_DATA.
    """


for each in (serve, config, db, events, projections, history, blobs):
    cli.add_command(each)


def main() -> None:
    """Run a command; Ctrl-C and a reader that goes away end it quietly."""
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as problem:
        problem.show()
        status = problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = STOPPED
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PROBLEM
    sys.exit(status if isinstance(status, int) else 0)
