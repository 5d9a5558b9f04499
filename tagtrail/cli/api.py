"""`tagtrail api`: API workers alone, with a database and a data folder that others may share."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from tagtrail.cli.common import resolved, setting_options
from tagtrail.config import HANDED_VARIABLE, Settings, hand_over
from tagtrail.server.allocator import ALLOCATOR_SETTINGS, ALLOCATOR_VARIABLE
from tagtrail.server.counting import FOLDER_VARIABLE, fresh_folder


@click.command()
@setting_options()
def api(config_file: str | None, **values: Any) -> None:
    """Run API workers alone until Ctrl-C.

    Others may share the database and the data folder.

    Beside it run `tagtrail keeper`, `tagtrail projector` and, with Kafka, `tagtrail relay`.
    """
    settings = resolved(values, config_file).settings
    if settings.port == 0:
        raise click.UsageError("--listen: an API by itself needs a port of its own, not 0")
    folder = Path(tempfile.mkdtemp(prefix="tagtrail-api-"))
    try:
        os.environ[FOLDER_VARIABLE] = str(fresh_folder(folder / "metrics"))
        _serve(settings, folder / "settings.json")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(settings: Settings, handed: Path) -> None:
    os.environ.setdefault(ALLOCATOR_VARIABLE, ALLOCATOR_SETTINGS)
    # Loaded late: the folder of the counters and the settings of the allocator must be known before.
    from tagtrail.cli.preparing import checked, shared
    from tagtrail.server import api as work

    checked(settings, "api")
    with shared(settings.data):
        hand_over(settings, handed)
        os.environ[HANDED_VARIABLE] = str(handed)
        work.main()
