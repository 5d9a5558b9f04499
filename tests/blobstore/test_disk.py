"""The local disk passes the contract of blob stores."""

from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from tests.blobstore.contract import BlobStoreContract


class TestDisk(BlobStoreContract):
    """Files in one folder, which another process opens too."""

    @pytest.fixture
    def other(self, data: Path) -> DiskBlobStore:
        """A store that knows only the files in the folder, as another process does."""
        return DiskBlobStore(data)
