"""Looks at the bytes that a manifest names. The domain decides whether the repository may serve them."""

from collections.abc import Sequence
from dataclasses import dataclass

from blobstore.interface import BlobName
from blobstore.small import SMALL_BYTES_MAX
from command_api.blobs.held import is_whole, small_content
from command_api.context import Context
from domain.digests import parse_digest
from domain.facts import Facts, Reference
from domain.link import Link
from domain.manifest import Held


@dataclass(frozen=True, slots=True)
class Looked:
    """The number of bytes that the repository has for each reference: None for nothing, or a file that is not whole.

    `config` has the bytes of the config blob if it is small, because they had to be read to see that they are right.
    """

    sizes: list[int | None]
    config: bytes | None


def look(context: Context, facts: Facts, found: Sequence[Held | None]) -> Looked:
    """Look at the files of all blobs that a manifest names (rule: look at the file)."""
    sizes: list[int | None] = []
    config = None
    for reference, each in zip(facts.references, found, strict=True):
        if isinstance(each, Link) and reference.role == "config" and each.size <= SMALL_BYTES_MAX:
            config = small_content(context, parse_digest(reference.digest), each)
            sizes.append(None if config is None else each.size)
        else:
            sizes.append(_whole_size(context, reference, each))
    return Looked(sizes, config)


def _whole_size(context: Context, reference: Reference, each: Held | None) -> int | None:
    if each is None or (isinstance(each, Link) and not is_whole(context, parse_digest(reference.digest), each)):
        return None
    return each.size


def read_config(context: Context, facts: Facts, found: Sequence[Held | None], looked: Looked) -> bytes | None:
    """The config blob's bytes, for metadata only, if it is small enough (rule: configs may be anything)."""
    if looked.config is not None:
        return looked.config
    for reference, each in zip(facts.references, found, strict=True):
        if reference.role == "config" and isinstance(each, Link):
            name = BlobName(parse_digest(reference.digest), each.generation)
            return context.blobs.read_small(name, context.limits.config_bytes_max)
    return None
