"""`tagtrail blobs`: the users of a blob, and checks of stored bytes."""

import os
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from blobstore.checking import Pace
from blobstore.disk import DiskBlobStore
from blobstore.interface import BlobStoreError
from domain.digests import InvalidDigest, parse_digest
from domain.names import InvalidName, RepositoryName, parse_repository_name
from eventstore.store import Store
from eventstore.types import StoreError
from projections.models import blob_references
from tagtrail import logs
from tagtrail.blob_check import DamagedBlob, UnknownRepository, check_blobs, live_blobs
from tagtrail.cli.common import (
    PROBLEM,
    Problem,
    console,
    database_of,
    output_option,
    print_json,
    progress_bar,
    resolved,
    setting_options,
)
from tagtrail.cli.history import reading
from tagtrail.options import InvalidValue, size

_NICENESS = 19
_RATE_MAX = 1 << 40


@click.group()
def blobs() -> None:
    """Ask about blobs, and check their bytes."""


@blobs.command()
@click.argument("digest")
@click.option(
    "-n", "limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most N manifests."
)
@output_option
@setting_options("data", "database")
def refs(digest: str, limit: int, output: str, config_file: str | None, **values: Any) -> None:
    """Print which repositories have a blob and which manifests name it."""
    try:
        parse_digest(digest)
    except InvalidDigest as problem:
        raise click.UsageError(str(problem)) from problem
    with reading(values, config_file) as reader:
        found = blob_references.references(reader, digest, None, limit)
    if not found.repositories and not found.manifests:
        raise Problem(f"no repository has {digest}")
    if output == "json":
        print_json(asdict(found))
        return
    others = " and others" if found.more_repositories else ""
    click.echo(f"in {len(found.repositories)} repositories: {', '.join(found.repositories)}{others}")
    many = "" if found.count_exact else "more than "
    table = Table("repository", "manifest", "as", caption=f"{many}{found.count} manifests name it")
    for repository, manifest, role in found.manifests:
        table.add_row(repository, manifest, role)
    console().print(table)


def _repository(_: click.Context, __: click.Parameter, given: str | None) -> RepositoryName | None:
    try:
        return None if given is None else parse_repository_name(given)
    except InvalidName as problem:
        raise click.BadParameter(str(problem)) from problem


def _rate(_: click.Context, __: click.Parameter, given: str | None) -> int | None:
    try:
        return None if given is None else size(1, _RATE_MAX)(given)
    except InvalidValue as problem:
        raise click.BadParameter(str(problem)) from problem


@blobs.command()
@click.option("--repo", "repository", metavar="R", callback=_repository, help="Only blobs that this repository links.")
@click.option("--rate", metavar="SIZE", callback=_rate, help="Read at most this many bytes a second.")
@output_option
@setting_options("data", "database")
def check(
    repository: RepositoryName | None, rate: int | None, output: str, config_file: str | None, **values: Any
) -> None:
    """Hash every stored blob and move damaged files to quarantine/. The exit status is 1 if any is found.

    Reads and writes go on meanwhile. A damaged blob is answered 404 from then on, so the next push of an image with
    this blob uploads it again. Ctrl-C does no harm.
    """
    settings = resolved({**values, "insecure_open": True}, config_file).settings
    database = database_of(values, config_file)
    if not (settings.data / "blobs").is_dir():
        raise Problem(f"{settings.data} holds no blobs: give --data the folder of the server")
    logs.configure(settings, "blobs-check")
    os.nice(_NICENESS)
    count = bytes_total = damaged = 0
    store = Store(database, pool_size=1)
    try:
        with reading(values, config_file) as reader, progress_bar() as bar:
            for each in live_blobs(store, repository):
                count, bytes_total = count + 1, bytes_total + each.size
            pace = Pace(rate)
            task = bar.add_task("checking bytes", total=bytes_total)

            def taken(block: int) -> None:
                bar.advance(task, block)
                pace(block)

            checker = DiskBlobStore(settings.data).checker(taken)
            for found in check_blobs(store, reader, checker, repository):
                damaged += 1
                _show(found, output)
    except UnknownRepository as problem:
        raise Problem(f"there is no repository {problem}") from problem
    except (StoreError, BlobStoreError) as problem:
        raise Problem(str(problem)) from problem
    finally:
        store.close()
    if output == "json":
        print_json({"blobs": count, "bytes": bytes_total, "damaged": damaged})
    else:
        click.echo(f"{count} blobs with {bytes_total} bytes checked, {damaged} damaged")
    click.get_current_context().exit(PROBLEM if damaged else 0)


def _show(found: DamagedBlob, output: str) -> None:
    if output == "json":
        print_json(asdict(found))
        return
    sizes = "" if found.found_size in (None, found.size) else f" ({found.found_size} of {found.size} bytes)"
    click.echo(f"{found.digest}: {found.damage}{sizes}")
    if found.moved_to is not None:
        click.echo(f"  moved to {found.moved_to}")
    click.echo(f"  in {len(found.repositories)} repositories: {', '.join(found.repositories)}")
    for repository, manifest, role in found.manifests:
        click.echo(f"  named by {repository}@{manifest} as {role}")
    if found.more:
        click.echo(f"  and by more: tagtrail blobs refs {found.digest}")
