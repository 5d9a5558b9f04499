"""Looks whether the bytes behind a link are there."""

from blobstore.interface import BlobName
from blobstore.small import SMALL_BYTES_MAX, read_right
from command_api.context import Context
from domain.digests import Digest
from domain.link import Link


def is_whole(context: Context, digest: Digest, link: Link) -> bool:
    """False if the file is missing, has another size than the linked blob, or is a small one with other bytes.

    So a blob that is 404 when it is read from its file is nowhere taken to be there.
    """
    name = BlobName(digest, link.generation)
    if context.blobs.stat(name) != link.size:
        return False
    if link.size > SMALL_BYTES_MAX:
        return True
    with context.work_gate:
        return read_right(context.blobs, name) is not None
