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

    Without --database a Postgres is run inside the data folder. Options come from flags, then from variables, then
    from the file, then from defaults; `tagtrail config show` tells which.
    """
    settings = resolved(values, config_file).settings
    try:
        Supervisor(settings, click.echo).run()
    except (CannotServe, DataFolderInUse, EmbeddedPostgresFailed, BlobStoreError, StoreError) as problem:
        raise Problem(str(problem)) from problem
