"""`tagtrail serve`."""

from typing import Any

import click

from blobstore.interface import BlobStoreError
from eventstore.types import StoreError
from tagtrail.cli.common import Problem, resolved, setting_options
from tagtrail.server.embedded import EmbeddedPostgresFailed
from tagtrail.server.lock import DataFolderInUse
from tagtrail.server.supervisor import CannotServe, Supervisor


@click.command()
@setting_options()
def serve(config_file: str | None, **values: Any) -> None:
    """Serve the registry until Ctrl-C.

    Without --database, a Postgres runs inside the data folder. An option is taken from its flag, else from its
    variable, else from the file, else from its default; `tagtrail config show` tells which.
    """
    settings = resolved(values, config_file).settings
    try:
        Supervisor(settings, click.echo).run()
    except (CannotServe, DataFolderInUse, EmbeddedPostgresFailed, BlobStoreError, StoreError) as problem:
        raise Problem(str(problem)) from problem
