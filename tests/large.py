"""Makes manifests that name very many things, and the blobs that they name, quickly."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain import link as links
from domain.event import encode
from domain.link import BlobLinked
from domain.media_types import OCI_INDEX, OCI_MANIFEST
from domain.streams import LIVE, blob_stream, link_stream
from eventstore.types import Cause, Command, NewEvent
from tests.api import CONFIG_TYPE, LAYER_TYPE, Registry, sha256

EVENTS_A_COMMAND = 500
NOT_HELD_TYPE = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def link_many(registry: Registry, repository: str, blobs: list[bytes]) -> None:
    """Put the blobs into the repository as pushes would, without a request for each."""
    folder = Path(registry.rooms.settings.data) / "blobs" / "sha256"
    for each in blobs:
        name = sha256(each).removeprefix("sha256:")
        (folder / name[:2]).mkdir(parents=True, exist_ok=True)
        (folder / name[:2] / f"{name}.0").write_bytes(each)
    for start in range(0, len(blobs), EVENTS_A_COMMAND):
        events = tuple(_linked(repository, each) for each in blobs[start : start + EVENTS_A_COMMAND])
        registry.rooms.store.append(Command(secrets.token_hex(16), Cause("tester", "r"), datetime.now(UTC), events))


def _linked(repository: str, blob: bytes) -> NewEvent:
    happened = BlobLinked(repository, sha256(blob), len(blob), 0, "upload")
    return NewEvent(
        link_stream(repository, happened.digest),
        repository,
        happened.TYPE,
        happened.SCHEMA_VERSION,
        encode(happened),
        ref=LIVE,
        state=links.to_state(links.Link(len(blob), 0)),
        refers_to=(blob_stream(happened.digest),),
    )


def many(count: int, salt: str = "") -> list[bytes]:
    """Make so many small blobs, all different."""
    return [f"{salt}{number}".encode() for number in range(count)]


def image_of(config: bytes, layers: list[bytes], *, media_type: str = LAYER_TYPE, **more: Any) -> bytes:
    """An image manifest in as few bytes as it can have."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG_TYPE, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": media_type, "digest": sha256(each), "size": len(each)} for each in layers],
        **more,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def index_of(children: list[bytes], **more: Any) -> bytes:
    """An index in as few bytes as it can have."""
    named = [{"mediaType": OCI_MANIFEST, "digest": sha256(each), "size": len(each)} for each in children]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named, **more}, separators=(",", ":")
    ).encode()
