"""Manifests that are accepted and manifests that are refused."""

import base64
import json
from typing import Any

import pytest

from domain.digests import digest_of
from domain.image_config import with_config
from domain.manifest_parser import InvalidManifest, InvalidManifestDigest, parse_manifest
from domain.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

D = "sha256:" + "a" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": D, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": D, "size": 7}


def image(**more: Any) -> dict[str, Any]:
    """A minimal image manifest, changed by `more`; None removes a member."""
    made = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER], **more}
    return {name: value for name, value in made.items() if value is not None}


def index(**more: Any) -> dict[str, Any]:
    """A minimal index, changed by `more`."""
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], **more}


def test_no_manifest_of_4_mib_names_too_much() -> None:
    """Even the shortest descriptors do not fit in so often. A larger manifest may name too much, and is refused."""
    shortest = f'{{"digest":"{D}","size":0}}'
    frame = '{{"schemaVersion":2,"manifests":[{}]}}'.format
    number = (4 * 1024 * 1024 - len(frame(""))) // (len(shortest) + 1)
    parsed = parse_manifest(frame(",".join([shortest] * number)).encode(), OCI_INDEX)
    assert len(parsed.facts.references) == number > 44_000
    with pytest.raises(InvalidManifest, match="more than 50000 descriptors"):
        parse_manifest(frame(",".join([shortest] * 50_001)).encode(), OCI_INDEX)


def test_an_image_manifest_gives_its_facts() -> None:
    """Config and layers in order, sizes summed, the config's type as artifact type."""
    parsed = parse_manifest(json.dumps(image(annotations={"k": "v"})).encode(), OCI_MANIFEST)
    assert parsed.media_type == OCI_MANIFEST
    assert [each.role for each in parsed.facts.references] == ["config", "layer"]
    assert parsed.facts.size == 9
    assert parsed.facts.artifact_type == CONFIG["mediaType"]
    assert parsed.facts.annotations == {"k": "v"}


@pytest.mark.parametrize(
    ("document", "content_type", "media_type"),
    [
        (image(), OCI_MANIFEST, OCI_MANIFEST),
        (image(mediaType=None), OCI_MANIFEST, OCI_MANIFEST),
        (image(), "", OCI_MANIFEST),
        (image(), "application/json", OCI_MANIFEST),
        (image(), OCI_MANIFEST.upper() + "; charset=utf-8", OCI_MANIFEST),
        (image(), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (image(layers=[]), OCI_MANIFEST, OCI_MANIFEST),
        (image(layers=None), OCI_MANIFEST, OCI_MANIFEST),
        (image(layers=[LAYER, LAYER]), OCI_MANIFEST, OCI_MANIFEST),
        (image(unknown={"Layers": [1, None]}, other=1.5), OCI_MANIFEST, OCI_MANIFEST),
        (image(annotations={"Config": "x", "MediaType": "y"}), OCI_MANIFEST, OCI_MANIFEST),
        (image(subject=CONFIG, artifactType="a/b"), OCI_MANIFEST, OCI_MANIFEST),
        (index(), OCI_INDEX, OCI_INDEX),
        (index(), DOCKER_LIST, DOCKER_LIST),
        (index(manifests=[{"mediaType": OCI_MANIFEST, "digest": D, "is_tagged": True}]), OCI_INDEX, OCI_INDEX),
        (index(manifests=[{"mediaType": OCI_INDEX, "digest": D, "size": 1}]), OCI_INDEX, OCI_INDEX),
    ],
)
def test_a_valid_manifest_is_accepted(document: dict[str, Any], content_type: str, media_type: str) -> None:
    """All of these are pushed by real clients."""
    assert parse_manifest(json.dumps(document).encode(), content_type).media_type == media_type


REFUSED: list[tuple[Any, str]] = [
    (b"", OCI_MANIFEST),
    (b"[]", OCI_MANIFEST),
    (b"null", OCI_MANIFEST),
    (b"{", OCI_MANIFEST),
    (b"[" * 100_000, OCI_MANIFEST),
    (b'{"a":' * 70 + b"1" + b"}" * 70, OCI_MANIFEST),
    (b'{"schemaVersion":' + b"9" * 5000 + b"}", OCI_MANIFEST),
    (b'{"schemaVersion":2,"x":NaN}', OCI_MANIFEST),
    (b'{"schemaVersion":2,"x":1e999}', OCI_MANIFEST),
    (json.dumps(image()).encode("utf-16"), OCI_MANIFEST),
    (b"\xef\xbb\xbf" + json.dumps(image()).encode(), OCI_MANIFEST),
    (b"\xff\xfe", OCI_MANIFEST),
    (json.dumps(image(note="a\x00b")).encode(), OCI_MANIFEST),
    (json.dumps(image(note="\ud800")).encode(), OCI_MANIFEST),
    (json.dumps(image())[:-1].encode() + b',"layers":[]}', OCI_MANIFEST),
    (image(schemaVersion=1), OCI_MANIFEST),
    (image(schemaVersion="2"), OCI_MANIFEST),
    (image(schemaVersion=2.0), OCI_MANIFEST),
    (image(schemaVersion=True), OCI_MANIFEST),
    (image(schemaVersion=None), OCI_MANIFEST),
    (image(mediaType=None), ""),
    (image(mediaType=None), "application/json"),
    (image(), "application/vnd.docker.distribution.manifest.v1+json"),
    (image(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    (image(mediaType="application/vnd.oci.artifact.manifest.v1+json"), OCI_MANIFEST),
    (image(mediaType=7), OCI_MANIFEST),
    (image(), OCI_INDEX),
    (image(mediaType=None), OCI_INDEX),
    (index(), OCI_MANIFEST),
    (index(mediaType=None), OCI_MANIFEST),
    (image(manifests=[]), OCI_MANIFEST),
    (index(layers=[]), OCI_INDEX),
    (image(config=None), OCI_MANIFEST),
    (image(config=[]), OCI_MANIFEST),
    (image(layers={}), OCI_MANIFEST),
    (image(layers=["x"]), OCI_MANIFEST),
    (image(Layers=[]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "Digest": D}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "size": -1}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "size": 1.5}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "size": "7"}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "size": 2**63}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "size": None}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "annotations": {"a": 1}}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "data": "!!"}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "data": base64.b64encode(b"7 bytes").decode()}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "urls": ["file:///etc/passwd"]}]), OCI_MANIFEST),
    (image(layers=[{**LAYER, "urls": ["http://a/b#c"]}]), OCI_MANIFEST),
    (image(annotations=[]), OCI_MANIFEST),
    (image(subject="x"), OCI_MANIFEST),
    (image(artifactType=1), OCI_MANIFEST),
    (index(manifests=None), OCI_MANIFEST),
    (image(layers=[LAYER] * 50_001), OCI_MANIFEST),
]


@pytest.mark.parametrize(("document", "content_type"), REFUSED)
def test_an_invalid_manifest_is_refused(document: Any, content_type: str) -> None:
    """Each would be read differently by different clients, or break a reader."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InvalidManifest):
        parse_manifest(body, content_type)


@pytest.mark.parametrize("digest", ["sha256:short", "md5:" + "a" * 32, "x", "sha256:" + "A" * 64])
def test_a_descriptor_without_a_real_digest_is_refused_as_such(digest: str) -> None:
    """DIGEST_INVALID, not MANIFEST_INVALID."""
    with pytest.raises(InvalidManifestDigest):
        parse_manifest(json.dumps(image(layers=[{**LAYER, "digest": digest}])).encode(), OCI_MANIFEST)


def test_embedded_data_that_fits_is_accepted() -> None:
    """The data member repeats the blob's bytes."""
    data = b"7 bytes"
    layer = {**LAYER, "digest": str(digest_of("sha256", data)), "data": base64.b64encode(data).decode()}
    parsed = parse_manifest(json.dumps(image(layers=[layer])).encode(), OCI_MANIFEST)
    assert parsed.facts.references[1].size == 7


def test_types_that_differ_in_flavour_only_are_kept_with_a_warning() -> None:
    """The Content-Type wins."""
    parsed = parse_manifest(json.dumps(image()).encode(), DOCKER_MANIFEST)
    assert parsed.warning is not None
    assert DOCKER_MANIFEST in parsed.warning


def test_foreign_layers_need_not_be_held() -> None:
    """Only these types are exempt; a layer of another type with urls is needed."""
    foreign = {**LAYER, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    named = {**LAYER, "urls": ["https://example.com/layer"]}
    parsed = parse_manifest(json.dumps(image(layers=[foreign, named])).encode(), OCI_MANIFEST)
    assert [each.required for each in parsed.facts.references] == [True, False, True]


def test_children_that_are_no_manifests_are_blobs() -> None:
    """A build cache's index lists layers."""
    cache = {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": D, "size": 1}
    parsed = parse_manifest(json.dumps(index(manifests=[LAYER, cache])).encode(), OCI_INDEX)
    assert [each.role for each in parsed.facts.references] == ["blob", "blob"]


@pytest.mark.parametrize(
    "config", [None, b"", b"{}", b"\xff\x00", b"[]", b"[" * 100_000, b'{"config":7,"history":[1,{}],"os":["x"]}']
)
def test_a_config_that_tells_nothing_changes_nothing(config: bytes | None) -> None:
    """A config may be any bytes."""
    facts = parse_manifest(json.dumps(image()).encode(), OCI_MANIFEST).facts
    assert with_config(facts, config) == facts


def test_a_config_gives_platform_labels_and_history() -> None:
    """Keys are read without regard to case; NUL and lone surrogates are dropped."""
    config = {
        "os": "linux",
        "Architecture": "arm64",
        "variant": "v8",
        "created": "2026-01-02T03:04:05Z",
        "config": {"labels": {"a": "b\x00c"}},
        "history": [{"created_by": "/bin/sh -c #(nop) CMD x"}, {"created_by": ""}],
    }
    facts = with_config(parse_manifest(json.dumps(image()).encode(), OCI_MANIFEST).facts, json.dumps(config).encode())
    assert facts.platform == "linux/arm64/v8"
    assert facts.created == "2026-01-02T03:04:05Z"
    assert facts.labels == {"a": "bc"}
    assert facts.history == ("CMD x",)
