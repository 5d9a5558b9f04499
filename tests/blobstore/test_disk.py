"""The disk passes what every blob store must pass."""

from pathlib import Path

import pytest

from blobstore.disk import DiskBlobStore
from tests.blobstore.contract import BlobStoreContract


class TestDisk(BlobStoreContract):
    """Files in one folder, which another process opens too."""

    @pytest.fixture
    def other(self, data: Path) -> DiskBlobStore:
        """Knows nothing but what lies in the folder."""
        return DiskBlobStore(data)
