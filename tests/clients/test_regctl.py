"""regctl: copies, tags, sha512, chunked uploads, manifests by hand, artifacts and referrers."""

import json
from pathlib import Path

import pytest

from .images import ARCHITECTURES, MANIFEST_TYPE, Layout, encode, random_bytes, read_blobs, write_layout
from .programs import Program
from .wire import Registry, digest_of

pytestmark = pytest.mark.clients

CHUNK_BYTES = 1 << 20


def _push(regctl: Program, layout: Layout, target: str) -> None:
    regctl("image", "copy", f"ocidir://{layout.folder}:{layout.tag}", target)


@pytest.mark.parametrize("architectures", [("amd64",), ARCHITECTURES], ids=["single", "multi"])
def test_regctl_copies_the_same_bytes_there_and_back(
    regctl: Program, registry: Registry, repository: str, tmp_path: Path, architectures: tuple[str, ...]
) -> None:
    layout = write_layout(tmp_path / "out", repository, architectures=architectures)
    remote = f"{registry.host}/{repository}:v1"
    _push(regctl, layout, remote)
    assert regctl("image", "digest", remote).text == layout.digest
    regctl("image", "copy", remote, f"ocidir://{tmp_path}/back:v1")
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_regctl_copies_with_referrers_and_digest_tags(
    regctl: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    source, target = f"{registry.host}/{repository}", f"{registry.host}/{repository}-copy"
    _push(regctl, layout, f"{source}:v1")
    kind = "application/vnd.example.sig"
    regctl("artifact", "put", f"--artifact-type={kind}", "--subject", f"{source}:v1", stdin=b"signed")
    regctl("image", "copy", f"{source}:v1", f"{source}:{layout.digest.replace(':', '-')}.note")
    regctl("image", "copy", "--referrers", "--digest-tags", f"{source}:v1", f"{target}:v1")
    assert registry.manifest(f"{repository}-copy", "v1").digest == layout.digest
    assert registry.tags(f"{repository}-copy") == registry.tags(repository)
    listed = json.loads(regctl("artifact", "list", "--format={{json .}}", f"{target}:v1").text)
    assert [entry["artifactType"] for entry in listed["descriptors"]] == [kind]


def test_regctl_lists_and_removes_tags(regctl: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """Removing a tag leaves the manifest and its other tags."""
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    for tag in ("v1", "v2", "v3"):
        _push(regctl, layout, f"{name}:{tag}")
    assert regctl("tag", "ls", name).lines == ["v1", "v2", "v3"]
    regctl("tag", "rm", f"{name}:v2")
    assert regctl("tag", "ls", name).lines == ["v1", "v3"]
    assert registry.manifest(repository, "v1").digest == layout.digest
    regctl("manifest", "delete", f"{name}@{layout.digest}")
    assert registry.manifest_status(repository, "v1") == 404


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_regctl_puts_a_blob_by_either_algorithm(
    regctl: Program, registry: Registry, repository: str, algorithm: str
) -> None:
    body = random_bytes(repository, 300_000)
    digest = digest_of(body, algorithm)
    name = f"{registry.host}/{repository}"
    assert regctl("blob", "put", f"--digest={digest}", name, stdin=body).text == digest
    assert registry.blob(repository, digest) == body
    assert regctl("blob", "get", name, digest).stdout == body


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_regctl_uploads_a_blob_in_chunks(regctl: Program, registry: Registry, repository: str, algorithm: str) -> None:
    """Five PATCH requests and a last PUT, as the client's trace shows."""
    chunked = ["--blob-max", str(CHUNK_BYTES), "--blob-chunk", str(CHUNK_BYTES)]
    regctl("registry", "set", "--skip-check", "--tls=disabled", *chunked, registry.host)
    body = random_bytes(repository, 4 * CHUNK_BYTES + 12_345)
    digest = digest_of(body, algorithm)
    done = regctl("-v", "trace", "blob", "put", f"--digest={digest}", f"{registry.host}/{repository}", stdin=body)
    assert done.text == digest
    assert done.stderr.count(b"method=PATCH") == 5
    assert registry.blob(repository, digest) == body


def test_regctl_refuses_a_blob_of_another_digest(regctl: Program, registry: Registry, repository: str) -> None:
    claimed = digest_of(b"something else")
    done = regctl.attempt("blob", "put", f"--digest={claimed}", f"{registry.host}/{repository}", stdin=b"this")
    assert done.code != 0
    assert registry.request("HEAD", f"/v2/{repository}/blobs/{claimed}").status == 404


def test_regctl_turns_an_image_to_sha512(regctl: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """Manifest, config and layers get sha512, are found by tag and by digest, and come back with the same bytes."""
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    _push(regctl, layout, f"{name}:v1")
    regctl("image", "mod", "--digest-algo=sha512", f"--create={name}:v512", f"{name}:v1")
    stored = registry.manifest(repository, "v512")
    assert stored.digest.startswith("sha512:")
    parts = stored.json()
    for descriptor in (parts["config"], *parts["layers"]):
        assert descriptor["digest"].startswith("sha512:")
        assert len(registry.blob(repository, descriptor["digest"])) == descriptor["size"]
    regctl("image", "copy", f"{name}:v512", f"ocidir://{tmp_path}/back:v512")
    assert read_blobs(tmp_path / "back")[stored.digest] == stored.body
    assert registry.manifest(repository, "v1").digest == layout.digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_regctl_puts_a_manifest_by_tag_and_by_digest(
    regctl: Program, registry: Registry, repository: str, algorithm: str
) -> None:
    name = f"{registry.host}/{repository}"
    regctl("blob", "put", f"--digest={digest_of(b'{}')}", name, stdin=b"{}")
    regctl("blob", "put", f"--digest={digest_of(b'bytes')}", name, stdin=b"bytes")
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": digest_of(b"bytes"), "size": 5}],
            "artifactType": "text/plain",
        }
    )
    digest = digest_of(manifest, algorithm)
    regctl("manifest", "put", f"-t={MANIFEST_TYPE}", f"{name}@{digest}", stdin=manifest)
    assert registry.manifest(repository, digest).body == manifest
    regctl("manifest", "put", f"-t={MANIFEST_TYPE}", f"{name}:v1", stdin=manifest)
    assert registry.manifest(repository, "v1").body == manifest
    got = regctl("manifest", "get", "--format=raw-body", f"{name}@{digest}")
    assert got.stdout == manifest


def test_regctl_makes_an_index(regctl: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    name = f"{registry.host}/{repository}"
    digests = {}
    for architecture in ARCHITECTURES:
        layout = write_layout(tmp_path / architecture, repository, architectures=[architecture])
        _push(regctl, layout, f"{name}:{architecture}")
        digests[architecture] = layout.digest
    references = [argument for architecture in digests for argument in ("--ref", f"{name}:{architecture}")]
    regctl("index", "create", *references, f"{name}:multi")
    for architecture, digest in digests.items():
        assert regctl("image", "digest", f"--platform=linux/{architecture}", f"{name}:multi").text == digest


def test_regctl_stores_artifacts_and_finds_referrers(
    regctl: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    _push(regctl, layout, f"{name}:v1")
    body = random_bytes(repository, 100_000)
    regctl("artifact", "put", "--artifact-type=application/vnd.example.bom", "--subject", f"{name}:v1", stdin=body)
    regctl("artifact", "put", "--artifact-type=application/vnd.example.sig", "--subject", f"{name}:v1", stdin=b"x")
    only = ["--filter-artifact-type=application/vnd.example.bom"]
    listed = json.loads(regctl("artifact", "list", *only, "--format={{json .}}", f"{name}:v1").text)
    assert [entry["artifactType"] for entry in listed["descriptors"]] == ["application/vnd.example.bom"]
    assert regctl("artifact", "get", *only, "--subject", f"{name}:v1").stdout == body
    assert registry.tags(repository) == ["v1"], "a registry with the referrers API gets no fallback tags"


def test_regctl_lists_repositories(regctl: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """The list is asked for a page of one name, after the name just before ours."""
    _push(regctl, write_layout(tmp_path / "out", repository), f"{registry.host}/{repository}:v1")
    assert regctl("repo", "ls", "--limit=1", f"--last={repository[:-1]}", registry.host).lines == [repository]
