"""Looks, before the append, whether everything that a manifest names is there; `naming` judges it under the lock."""

from collections.abc import Mapping, Sequence

from blobstore.interface import BlobName
from command_api.context import Context
from domain import link as links
from domain import manifest as manifests
from domain.digests import parse_digest
from domain.facts import Facts, Reference
from domain.names import RepositoryName
from domain.streams import LIVE, PRESENT, link_stream, manifest_stream
from eventstore.types import StreamState
from protocol.errors import Code, Problem, WireError, error

States = Mapping[str, StreamState]


def missing_blobs(digests: Sequence[str]) -> WireError:
    """404 with one MANIFEST_BLOB_UNKNOWN for each missing digest (rule: missing blobs are listed)."""
    return WireError(
        *(
            Problem(Code.MANIFEST_BLOB_UNKNOWN, "the manifest names something that this repository does not have", each)
            for each in dict.fromkeys(digests)
        )
    )


def standing_of(context: Context, repository: RepositoryName, facts: Facts) -> States:
    """What stands beside the streams of everything that the manifest names, all at one moment."""
    streams: list[str] = []
    for each in facts.references:
        streams.append(link_stream(repository, each.digest))
        if each.role in ("child", "blob"):
            streams.append(manifest_stream(repository, each.digest))
    return context.store.stream_states(list(dict.fromkeys(streams)))


def check_stored(context: Context, repository: RepositoryName, facts: Facts, states: States) -> None:
    """Look that every named blob's file is whole and every size is right (rule: look at the file).

    Raises 404 MANIFEST_BLOB_UNKNOWN for all missing ones together, 400 SIZE_INVALID for the first wrong size.
    """
    missing = []
    for each in facts.references:
        size = _stored_size(context, repository, each, states)
        if size is None:
            if each.required:
                missing.append(each.digest)
        elif each.size is not None and each.size != size:
            raise error(
                Code.SIZE_INVALID,
                f"{each.digest} has {size} bytes, the manifest says {each.size}",
                {"digest": each.digest},
            )
    if missing:
        raise missing_blobs(missing)


def _stored_size(context: Context, repository: RepositoryName, reference: Reference, states: States) -> int | None:
    if reference.role in ("child", "blob"):
        manifest = states[manifest_stream(repository, reference.digest)]
        if manifest.ref == PRESENT and manifest.state is not None:
            return manifests.from_state(manifest.state).size
    link = states[link_stream(repository, reference.digest)]
    if link.ref != LIVE or link.state is None:
        return None
    standing = links.from_state(link.state)
    if context.blobs.stat(BlobName(parse_digest(reference.digest), standing.generation)) != standing.size:
        return None
    return standing.size


def read_config(context: Context, repository: RepositoryName, facts: Facts, states: States) -> bytes | None:
    """The config blob's bytes, for metadata only, if it is small enough (rule: configs may be anything)."""
    digest = facts.config_digest
    if digest is None:
        return None
    link = states[link_stream(repository, digest)]
    if link.state is None:
        return None
    name = BlobName(parse_digest(digest), links.from_state(link.state).generation)
    return context.blobs.read_small(name, context.limits.config_bytes_max)
