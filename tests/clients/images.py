"""Makes images by hand: OCI layouts with known bytes for one architecture or several, and file trees for an engine."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .wire import digest_of

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURES = ("amd64", "arm64")
BUSYBOX_LINKS = ("sh", "cat", "echo", "sha256sum", "ls", "true")


def random_bytes(seed: str, size: int) -> bytes:
    """Bytes that do not compress and are the same for the same seed."""
    return Random(seed).randbytes(size)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar with fixed times and owners, so that the same files have the same digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def encode(document: Any) -> bytes:
    """JSON as a client would write it."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI image layout on disk with one tag; ``digest`` is that of its manifest or index."""

    folder: Path
    tag: str
    digest: str

    def blobs(self) -> dict[str, bytes]:
        """Every file of the layout by digest: configs, layers, manifests, indexes."""
        return read_blobs(self.folder)

    @property
    def manifest(self) -> bytes:
        """The bytes that the tag names."""
        return self.blobs()[self.digest]


def read_blobs(folder: Path) -> dict[str, bytes]:
    """Every blob of a layout by digest, each checked against its name."""
    found: dict[str, bytes] = {}
    for file in sorted((folder / "blobs").glob("*/*")):
        digest = f"{file.parent.name}:{file.name}"
        body = file.read_bytes()
        assert digest_of(body, file.parent.name) == digest, f"{file} has other bytes than its name says"
        found[digest] = body
    return found


def _put(folder: Path, media_type: str, body: bytes) -> dict[str, Any]:
    digest = digest_of(body)
    algorithm, _, encoded = digest.partition(":")
    target = folder / "blobs" / algorithm / encoded
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body)
    return {"mediaType": media_type, "digest": digest, "size": len(body)}


def _put_image(folder: Path, seed: str, architecture: str, layer_sizes: Sequence[int]) -> dict[str, Any]:
    """Write one image for one architecture: two or more layers, a config, a manifest; answer its descriptor."""
    layers, diff_ids = [], []
    for number, size in enumerate(layer_sizes):
        name = f"layer-{number}.bin"
        tar = tar_of({name: random_bytes(f"{seed}/{architecture}/{number}", size), "arch": architecture.encode()})
        diff_ids.append(digest_of(tar))
        layers.append(_put(folder, LAYER_TYPE, gzip.compress(tar, mtime=0)))
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": f"layer {n}"} for n in range(len(layers))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _put(folder, CONFIG_TYPE, encode(config)),
        "layers": layers,
        "annotations": {"org.opencontainers.image.title": seed},
    }
    return _put(folder, MANIFEST_TYPE, encode(manifest))


def write_layout(
    folder: Path,
    seed: str,
    *,
    architectures: Sequence[str] = ("amd64",),
    layer_sizes: Sequence[int] = (2_000, 300_000),
    tag: str = "v1",
) -> Layout:
    """Write an OCI layout: one image, or an index over one image per architecture when several are named."""
    folder.mkdir(parents=True)
    children = [_put_image(folder, seed, architecture, layer_sizes) for architecture in architectures]
    if len(children) == 1:
        top = children[0]
    else:
        platforms = [{"os": "linux", "architecture": architecture} for architecture in architectures]
        listed = [{**child, "platform": platform} for child, platform in zip(children, platforms, strict=True)]
        top = _put(folder, INDEX_TYPE, encode({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed}))
    digest = str(top["digest"])
    top = {**top, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_bytes(encode({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [top]}))
    return Layout(folder, tag, digest)


def docker_archive(reference: str, architecture: str) -> bytes:
    """A tar as ``docker load`` takes it: one image of one layer, for any architecture whatever the engine's own is."""
    layer = tar_of({"payload": random_bytes(f"{reference}/{architecture}", 200_000)})
    config = encode(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/payload"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "payload"}],
        }
    )
    listed = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    return tar_of({"manifest.json": encode(listed), "config.json": config, "layer.tar": layer})


def write_root(folder: Path, busybox: Path) -> None:
    """Write the file tree of a base image: busybox and links to it."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    shutil.copy2(busybox, programs / "busybox")
    for name in BUSYBOX_LINKS:
        (programs / name).symlink_to("busybox")
    (folder / "tmp").mkdir(mode=0o1777)


def tar_tree(folder: Path) -> bytes:
    """A tar of a whole tree, as ``docker import`` takes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()
