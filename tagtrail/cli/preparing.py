"""Before a single process works: its database is found safe, and its data folder is held."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from blobstore.disk import DiskBlobStore
from blobstore.interface import BlobStoreError
from domain.features import HANDLED
from eventstore import schema
from eventstore.types import StoreError
from projections.engine.setup import ensure_tables
from tagtrail.cli.common import Problem
from tagtrail.config import Settings, mask_url
from tagtrail.server.lock import LOCK_FILE


def checked(settings: Settings, kind: str) -> Settings:
    """The settings, after their database was found safe to serve with for a process of this kind."""
    if settings.database is None:
        raise click.UsageError("name the database: --database URL or TAGTRAIL_DATABASE")
    try:
        problems = schema.check(settings.database, {kind: HANDLED[kind]})
        if problems:
            raise Problem("the database is not safe to serve with:\n  " + "\n  ".join(problems))
        schema.note_cluster(settings.database)
        ensure_tables(settings.database)
    except StoreError as problem:
        raise Problem(f"{mask_url(settings.database)}: {problem}") from problem
    return settings


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
