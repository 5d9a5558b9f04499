"""crane: append, push, pull, ls, catalog, copy, index append, digest, delete."""

from pathlib import Path

import pytest

from .images import ARCHITECTURES, read_blobs, tar_of, write_layout
from .programs import Program
from .wire import Registry, digest_of

pytestmark = pytest.mark.clients


def test_crane_appends_an_image_without_an_engine(
    crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    reference = f"{registry.host}/{repository}:v1"
    (tmp_path / "layer.tar").write_bytes(tar_of({"file": repository.encode() * 1000}))
    named = crane("append", "-f", tmp_path / "layer.tar", "-t", reference).text
    assert named == f"{registry.host}/{repository}@{registry.manifest(repository, 'v1').digest}"
    exported = crane("export", reference, "-").stdout
    assert repository.encode() * 1000 in exported
    crane("validate", "--remote", reference)


def test_crane_pulls_the_same_bytes_that_it_pushed(
    crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    reference = f"{registry.host}/{repository}:v1"
    crane("push", layout.folder, reference)
    assert crane("digest", reference).text == layout.digest
    crane("pull", "--format=oci", reference, tmp_path / "back")
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_crane_pushes_an_index(crane: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """Crane pushes the layout's own index, which names one multi-arch image."""
    layout = write_layout(tmp_path / "out", repository, architectures=ARCHITECTURES)
    reference = f"{registry.host}/{repository}:v1"
    crane("push", "--index", layout.folder, reference)
    crane("pull", "--format=oci", reference, tmp_path / "back")
    pushed, pulled = layout.blobs(), read_blobs(tmp_path / "back")
    assert pushed.items() <= pulled.items()
    assert set(pulled) - set(pushed) == {registry.manifest(repository, "v1").digest}
    assert crane("digest", f"{registry.host}/{repository}@{layout.digest}").text == layout.digest


def test_crane_makes_an_index_of_pushed_images(
    crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Each platform's pull gets that platform's manifest."""
    digests = {}
    for architecture in ARCHITECTURES:
        layout = write_layout(tmp_path / architecture, repository, architectures=[architecture])
        crane("push", layout.folder, f"{registry.host}/{repository}:{architecture}")
        digests[architecture] = layout.digest
    children = [
        argument for digest in digests.values() for argument in ("-m", f"{registry.host}/{repository}@{digest}")
    ]
    multi = f"{registry.host}/{repository}:multi"
    crane("index", "append", *children, "-t", multi)
    for architecture, digest in digests.items():
        assert crane("digest", f"--platform=linux/{architecture}", multi).text == digest
        crane("pull", "--format=oci", f"--platform=linux/{architecture}", multi, tmp_path / f"back-{architecture}")
        assert read_blobs(tmp_path / f"back-{architecture}").keys() >= {digest}


def test_crane_lists_tags_and_repositories(crane: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "out", repository)
    crane("push", layout.folder, f"{registry.host}/{repository}:b")
    crane("tag", f"{registry.host}/{repository}:b", "a")
    assert crane("ls", f"{registry.host}/{repository}").lines == ["a", "b"]
    catalog = crane("catalog", registry.host).lines
    assert repository in catalog
    assert catalog == sorted(catalog)


def test_crane_copies_between_repositories(crane: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "out", repository)
    source, target = f"{registry.host}/{repository}", f"{registry.host}/{repository}/copy"
    crane("push", layout.folder, f"{source}:v1")
    crane("copy", f"{source}:v1", f"{target}:v2")
    crane("tag", f"{source}:v1", "v3")
    crane("copy", "--all-tags", source, target)
    assert registry.tags(f"{repository}/copy") == ["v1", "v2", "v3"]
    crane("pull", "--format=oci", f"{target}:v2", tmp_path / "back")
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_crane_deletes_a_tag_and_then_the_manifest(
    crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Deleting by tag takes only the tag; deleting by digest takes the manifest with its other tags."""
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    for tag in ("v1", "v2"):
        crane("push", layout.folder, f"{name}:{tag}")
    crane("delete", f"{name}:v1")
    assert registry.tags(repository) == ["v2"]
    assert crane.attempt("digest", f"{name}:v1").code != 0
    assert crane("digest", f"{name}:v2").text == layout.digest
    crane("delete", f"{name}@{layout.digest}")
    assert registry.manifest_status(repository, layout.digest) == 404
    assert registry.manifest_status(repository, "v2") == 404


def test_crane_changes_an_image_in_place(crane: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "out", repository)
    reference = f"{registry.host}/{repository}:v1"
    crane("push", layout.folder, reference)
    crane("mutate", "--annotation", "trail=yes", "--label", "trail=yes", "-t", reference, reference)
    changed = registry.manifest(repository, "v1")
    assert changed.digest != layout.digest
    assert changed.json()["annotations"]["trail"] == "yes"
    assert registry.manifest(repository, layout.digest).body == layout.manifest


def test_crane_reads_blobs_manifests_and_configs(
    crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    crane("push", layout.folder, f"{name}:v1")
    assert crane("manifest", f"{name}:v1").stdout.strip() == layout.manifest
    manifest = registry.manifest(repository, "v1").json()
    assert digest_of(crane("config", f"{name}:v1").stdout.strip()) == manifest["config"]["digest"]
    for layer in manifest["layers"]:
        assert crane("blob", f"{name}@{layer['digest']}").stdout == layout.blobs()[layer["digest"]]
