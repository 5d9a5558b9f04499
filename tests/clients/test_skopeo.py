"""skopeo: copies both ways keep every byte, single and multi-arch; inspect, list-tags, delete."""

import json
from pathlib import Path

import pytest

from .images import ARCHITECTURES, Layout, read_blobs, write_layout
from .programs import Program
from .wire import Registry

pytestmark = pytest.mark.clients

UP = "--dest-tls-verify=false"
DOWN = "--src-tls-verify=false"


def _push(skopeo: Program, layout: Layout, target: str) -> None:
    skopeo("copy", "--all", "--preserve-digests", UP, f"oci:{layout.folder}:{layout.tag}", f"docker://{target}")


@pytest.mark.parametrize("architectures", [("amd64",), ARCHITECTURES], ids=["single", "multi"])
def test_skopeo_copies_the_same_bytes_there_and_back(
    skopeo: Program, registry: Registry, repository: str, tmp_path: Path, architectures: tuple[str, ...]
) -> None:
    layout = write_layout(tmp_path / "out", repository, architectures=architectures)
    _push(skopeo, layout, f"{registry.host}/{repository}:v1")
    assert registry.manifest(repository, "v1").body == layout.manifest
    back = f"oci:{tmp_path}/back:v1"
    skopeo("copy", "--all", "--preserve-digests", DOWN, f"docker://{registry.host}/{repository}:v1", back)
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_skopeo_copies_within_the_registry(
    skopeo: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """It copies an index with all that it names from one repository to another."""
    layout = write_layout(tmp_path / "out", repository, architectures=ARCHITECTURES)
    _push(skopeo, layout, f"{registry.host}/{repository}:v1")
    source, target = f"docker://{registry.host}/{repository}:v1", f"docker://{registry.host}/{repository}-copy:v2"
    skopeo("copy", "--all", UP, DOWN, source, target)
    assert registry.manifest(f"{repository}-copy", "v2").digest == layout.digest
    skopeo("copy", "--all", "--preserve-digests", DOWN, target, f"oci:{tmp_path}/back:v2")
    assert read_blobs(tmp_path / "back") == layout.blobs()


def test_skopeo_inspects_the_image_that_it_pushed(
    skopeo: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    _push(skopeo, layout, f"{registry.host}/{repository}:v1")
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/{repository}:v1").text)
    assert shown["Digest"] == layout.digest
    assert shown["RepoTags"] == ["v1"]
    assert shown["Architecture"] == "amd64"
    assert shown["Labels"] == {"seed": repository}


def test_skopeo_lists_tags(skopeo: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "out", repository)
    for tag in ("v2", "v10", "latest"):
        _push(skopeo, layout, f"{registry.host}/{repository}:{tag}")
    shown = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry.host}/{repository}").text)
    assert shown["Tags"] == ["latest", "v10", "v2"]


def test_skopeo_deletes_an_image(skopeo: Program, registry: Registry, repository: str, tmp_path: Path) -> None:
    """It deletes by digest, so every tag of that digest goes."""
    layout = write_layout(tmp_path / "out", repository)
    _push(skopeo, layout, f"{registry.host}/{repository}:v1")
    _push(skopeo, layout, f"{registry.host}/{repository}:v2")
    skopeo("delete", "--tls-verify=false", f"docker://{registry.host}/{repository}:v1")
    assert registry.manifest_status(repository, "v1") == 404
    assert registry.manifest_status(repository, "v2") == 404
    assert registry.manifest_status(repository, layout.digest) == 404


def test_skopeo_syncs_a_repository_to_a_folder(
    skopeo: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    for tag in ("a", "b"):
        _push(skopeo, layout, f"{registry.host}/{repository}:{tag}")
    skopeo("sync", DOWN, "--src=docker", "--dest=dir", f"{registry.host}/{repository}", tmp_path / "sync")
    name = repository.rpartition("/")[2]
    assert sorted(folder.name for folder in (tmp_path / "sync").iterdir()) == [f"{name}:a", f"{name}:b"]
