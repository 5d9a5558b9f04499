"""Looks at the bytes that a manifest names. The domain decides whether the repository may serve them."""

from collections.abc import Sequence

from blobstore.interface import BlobName
from command_api.blobs.held import is_whole
from command_api.context import Context
from domain.digests import parse_digest
from domain.facts import Facts
from domain.link import Link
from domain.manifest import Held


def whole_sizes(context: Context, facts: Facts, found: Sequence[Held | None]) -> list[int | None]:
    """The number of bytes that the repository has for each reference (rule: look at the file).

    None where it has nothing, or a file that is not whole.
    """
    return [
        None
        if each is None or (isinstance(each, Link) and not is_whole(context, parse_digest(reference.digest), each))
        else each.size
        for reference, each in zip(facts.references, found, strict=True)
    ]


def read_config(context: Context, facts: Facts, found: Sequence[Held | None]) -> bytes | None:
    """The config blob's bytes, for metadata only, if it is small enough (rule: configs may be anything)."""
    for reference, each in zip(facts.references, found, strict=True):
        if reference.role == "config" and isinstance(each, Link):
            name = BlobName(parse_digest(reference.digest), each.generation)
            return context.blobs.read_small(name, context.limits.config_bytes_max)
    return None
