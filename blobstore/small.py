"""Small blobs, whose bytes are compared with their digest: a file may have the right size and other bytes."""

from blobstore.interface import BlobName, BlobStore
from domain.digests import digest_of

# Configs, signatures and attestations. Reading larger ones for each look would cost too much.
SMALL_BYTES_MAX = 32 * 1024
# One wrong reading may be a fault of the reading and not of the file.
_READINGS = 2


def read_right(blobs: BlobStore, name: BlobName) -> bytes | None:
    """The bytes of a small blob, None if there are none or they have another digest."""
    for _ in range(_READINGS):
        content = blobs.read_small(name, SMALL_BYTES_MAX)
        if content is not None and digest_of(name.digest.algorithm, content) == name.digest:
            return content
    return None
