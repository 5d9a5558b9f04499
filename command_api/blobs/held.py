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
    if link.size <= SMALL_BYTES_MAX:
        return small_content(context, digest, link) is not None
    return context.blobs.stat(BlobName(digest, link.generation)) == link.size


def small_content(context: Context, digest: Digest, link: Link) -> bytes | None:
    """The bytes of a small blob; None if its file is not whole."""
    with context.work_gate:
        content = read_right(context.blobs, BlobName(digest, link.generation))
    return content if content is not None and len(content) == link.size else None
