"""`tagtrail api`: API workers alone, with a database and a data folder that others may share."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from blobstore.disk import DiskBlobStore
from blobstore.interface import BlobStoreError
from tagtrail.cli.common import Problem, resolved, setting_options
from tagtrail.config import HANDED_VARIABLE, Settings, hand_over
from tagtrail.server.allocator import ALLOCATOR_SETTINGS, ALLOCATOR_VARIABLE
from tagtrail.server.counting import FOLDER_VARIABLE, fresh_folder
from tagtrail.server.lock import LOCK_FILE


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
    from tagtrail.cli.processes import checked
    from tagtrail.server import api as work

    checked(settings, "api")
    with shared(settings.data):
        hand_over(settings, handed)
        os.environ[HANDED_VARIABLE] = str(handed)
        work.main()


@contextmanager
def shared(data: Path) -> Iterator[None]:
    """Make the data folder and hold it together with others of our kind, but not beside `tagtrail serve`."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        DiskBlobStore(data).prepare()
    except (OSError, BlobStoreError) as problem:
        raise Problem(f"the data folder {data} cannot be used: {problem}") from problem
    file = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        os.close(file)
        raise Problem(f"{data} is served by `tagtrail serve`; stop that first") from problem
    try:
        yield
    finally:
        os.close(file)
