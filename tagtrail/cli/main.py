"""`tagtrail`: the program's entry point."""

import os
import sys
from importlib.metadata import version

import click

from tagtrail.cli.configuration import config
from tagtrail.cli.database import db
from tagtrail.cli.events import events
from tagtrail.cli.history import blobs, history
from tagtrail.cli.projections import projections
from tagtrail.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("tagtrail"), prog_name="tagtrail")
def cli() -> None:
    """A container registry that remembers.

    Exit status: 0 well done, 1 a problem or a difference found, 2 wrong usage.
    """


for each in (serve, config, db, events, projections, history, blobs):
    cli.add_command(each)


def main() -> None:
    """Run a command; Ctrl-C and a reader that goes away end it quietly."""
    try:
        cli(standalone_mode=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
