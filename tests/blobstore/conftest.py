"""A blob store on the local disk, in a folder of its own."""

from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobStore:
    """A prepared store."""
    made = DiskBlobStore(tmp_path / "data")
    made.prepare()
    return made


@pytest.fixture
def data(store: DiskBlobStore, tmp_path: Path) -> Path:
    """The store's folder."""
    return tmp_path / "data"
