"""Looks whether the bytes behind a link are there."""

from blobstore.interface import BlobName
from command_api.context import Context
from domain.digests import Digest
from domain.link import Link


def is_whole(context: Context, digest: Digest, link: Link) -> bool:
    """False if the file is missing, or shorter or longer than what was linked."""
    return context.blobs.stat(BlobName(digest, link.generation)) == link.size
