"""The pushes of BuildKit, sent by hand because its builder is a plugin that Debian lacks: caches and attestations."""

import gzip
from typing import Any

import pytest

from .images import ARCHITECTURES, CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE, encode, random_bytes, tar_of
from .programs import Program
from .wire import Registry, digest_of

pytestmark = pytest.mark.clients

CACHE_CONFIG_TYPE = "application/vnd.buildkit.cacheconfig.v0"
DOCKER_LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _cache(registry: Registry, repository: str, layer_type: str) -> list[dict[str, Any]]:
    """Upload the blobs of a cache of two layers; answers the children of its index: blobs, no manifests."""
    children: list[dict[str, Any]] = []
    for number in range(2):
        tar = tar_of({"layer": random_bytes(f"{repository}/{number}", 50_000)})
        marks = {"buildkit/createdat": "2026-01-02T03:04:05Z", "containerd.io/uncompressed": digest_of(tar)}
        layer = registry.put_blob(repository, gzip.compress(tar, mtime=0))
        children.append({"mediaType": layer_type, **layer, "annotations": marks})
    links = [{"blob": child["digest"], "parent": number - 1} for number, child in enumerate(children)]
    config = encode({"layers": links, "records": [{"digest": digest_of(b"record"), "results": [{"layer": 1}]}]})
    return [*children, {"mediaType": CACHE_CONFIG_TYPE, **registry.put_blob(repository, config)}]


@pytest.mark.parametrize(
    ("index_type", "layer_type"),
    [(INDEX_TYPE, LAYER_TYPE), (DOCKER_LIST_TYPE, DOCKER_LAYER_TYPE)],
    ids=["oci", "docker"],
)
def test_a_cache_index_is_kept_although_its_children_are_blobs(
    registry: Registry, repository: str, index_type: str, layer_type: str
) -> None:
    """BuildKit pushes this with `--cache-to type=registry,image-manifest=false`, its default before 0.21."""
    children = _cache(registry, repository, layer_type)
    body = encode({"schemaVersion": 2, "mediaType": index_type, "manifests": children})
    done = registry.put_manifest(repository, "cache", index_type, body)
    assert done.status == 201, done.body
    stored = registry.manifest(repository, "cache")
    assert (stored.body, stored.media_type) == (body, index_type)
    for child in children:
        assert len(registry.blob(repository, child["digest"])) == child["size"]


def test_a_cache_index_that_names_an_absent_blob_is_refused(registry: Registry, repository: str) -> None:
    children = _cache(registry, repository, LAYER_TYPE)
    absent = digest_of(repository.encode())
    children.append({"mediaType": LAYER_TYPE, "digest": absent, "size": len(repository)})
    body = encode({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": children})
    done = registry.put_manifest(repository, "cache", INDEX_TYPE, body)
    assert done.status == 404
    assert [error["code"] for error in done.json()["errors"]] == ["MANIFEST_BLOB_UNKNOWN"]
    assert absent in str(done.json()["errors"][0]["detail"])
    assert registry.manifest_status(repository, "cache") == 404


def test_an_index_with_attestations_gives_each_platform_its_image(
    crane: Program, registry: Registry, repository: str
) -> None:
    """BuildKit lists attestations beside the images, as manifests of the platform unknown/unknown."""
    listed: list[dict[str, Any]] = []
    for architecture in ARCHITECTURES:
        image = _push_image(registry, repository, architecture)
        listed.append({**image, "platform": {"os": "linux", "architecture": architecture}})
        about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
        attestation = _push_attestation(registry, repository, architecture)
        unknown = {"os": "unknown", "architecture": "unknown"}
        listed.append({**attestation, "annotations": about, "platform": unknown})
    body = encode({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed})
    assert registry.put_manifest(repository, "v1", INDEX_TYPE, body).status == 201
    name = f"{registry.host}/{repository}:v1"
    assert crane("digest", name).text == digest_of(body)
    for architecture, image in zip(ARCHITECTURES, listed[::2], strict=True):
        assert crane("digest", f"--platform=linux/{architecture}", name).text == image["digest"]


def _push_image(registry: Registry, repository: str, architecture: str) -> dict[str, Any]:
    tar = tar_of({"payload": random_bytes(f"{repository}/{architecture}", 20_000)})
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]}}
    layer = {"mediaType": LAYER_TYPE, **registry.put_blob(repository, gzip.compress(tar, mtime=0))}
    return _push_manifest(registry, repository, encode(config), [layer])


def _push_attestation(registry: Registry, repository: str, architecture: str) -> dict[str, Any]:
    statement = encode({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"name": architecture}]})
    marks = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
    stored = registry.put_blob(repository, statement)
    layer = {"mediaType": "application/vnd.in-toto+json", **stored, "annotations": marks}
    config = {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": [stored["digest"]]}}
    return _push_manifest(registry, repository, encode(config), [layer])


def _push_manifest(registry: Registry, repository: str, config: bytes, layers: list[dict[str, Any]]) -> dict[str, Any]:
    described = {"mediaType": CONFIG_TYPE, **registry.put_blob(repository, config)}
    body = encode({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": layers})
    digest = digest_of(body)
    assert registry.put_manifest(repository, digest, MANIFEST_TYPE, body).status == 201
    return {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(body)}
