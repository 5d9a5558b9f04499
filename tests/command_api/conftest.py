"""Two processes of one registry, within the process of the test."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from command_api.uploads.seal_keys import SealKeys
from command_api.uploads.sessions import Sessions
from tests.api import Registry, registry_over
from tests.postgres import Database


@pytest.fixture
def first(database: Database, tmp_path: Path) -> Iterator[Registry]:
    """A process of a registry."""
    with registry_over(database, tmp_path) as registry:
        yield registry


@pytest.fixture
def second(first: Registry) -> Registry:
    """Another process over the same database and disk: what it remembers is its own."""
    blobs = DiskBlobStore(first.rooms.settings.data)
    keys = SealKeys(first.rooms.store.seal_keys)
    commands = replace(first.rooms.commands, blobs=blobs, sessions=Sessions(), seal_keys=keys)
    return Registry(replace(first.rooms, commands=commands, questions=replace(first.rooms.questions, blobs=blobs)))
