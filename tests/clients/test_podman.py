"""podman: what is pushed comes back the same, single and multi-arch."""

import json

import pytest

from .images import ARCHITECTURES, random_bytes, tar_of
from .programs import Program
from .wire import Registry

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("podman")]


def _import(podman: Program, reference: str, architecture: str = "amd64") -> str:
    """Import an image whose bytes nobody else has; answers its id."""
    tree = tar_of({"big": random_bytes(f"{reference}/{architecture}", 400_000), "name": reference.encode()})
    podman("import", f"--arch={architecture}", "-", reference, stdin=tree)
    return _image_id(podman, reference)


def _image_id(podman: Program, reference: str) -> str:
    return podman("image", "inspect", "--format={{.Id}}", reference).text


def test_podman_pulls_back_the_image_it_pushed(podman: Program, registry: Registry, repository: str) -> None:
    reference = f"{registry.host}/{repository}:v1"
    image_id = _import(podman, reference)
    podman("push", "--tls-verify=false", reference)
    config = registry.manifest(repository, "v1").json()["config"]["digest"]
    assert config == f"sha256:{image_id}"

    podman("rmi", "--force", image_id)
    assert podman.attempt("image", "exists", reference).code == 1
    podman("pull", "--tls-verify=false", reference)
    assert _image_id(podman, reference) == image_id


@pytest.mark.parametrize("media", ["oci", "v2s2"])
def test_podman_pushes_either_flavour(podman: Program, registry: Registry, repository: str, media: str) -> None:
    """The flavours are OCI's manifests and Docker's own."""
    image_id = _import(podman, "localhost/flavour:1")
    reference = f"{registry.host}/{repository}:{media}"
    podman("push", "--tls-verify=false", f"--format={media}", "localhost/flavour:1", reference)
    assert ("oci" if media == "oci" else "docker") in registry.manifest(repository, media).media_type
    podman("rmi", "--force", image_id)
    podman("pull", "--tls-verify=false", reference)
    shown = json.loads(podman("image", "inspect", reference).text)[0]
    assert shown["RootFS"]["Layers"]


def test_podman_makes_a_multi_arch_image(podman: Program, registry: Registry, repository: str) -> None:
    reference = f"{registry.host}/{repository}:multi"
    podman("manifest", "create", "localhost/listed:1")
    ids = {}
    for architecture in ARCHITECTURES:
        ids[architecture] = _import(podman, f"localhost/{architecture}:1", architecture)
        podman("manifest", "add", "localhost/listed:1", f"containers-storage:localhost/{architecture}:1")
    podman("manifest", "push", "--all", "--tls-verify=false", "localhost/listed:1", f"docker://{reference}")
    children = registry.manifest(repository, "multi").json()["manifests"]
    assert {child["platform"]["architecture"] for child in children} == set(ARCHITECTURES)

    podman("manifest", "rm", "localhost/listed:1")
    for architecture, image_id in ids.items():
        podman("rmi", "--force", image_id)
        podman("pull", "--tls-verify=false", f"--arch={architecture}", reference)
        assert _image_id(podman, reference) == image_id


def test_podman_searches_tags(podman: Program, registry: Registry, repository: str) -> None:
    _import(podman, "localhost/tagged:1")
    for tag in ("one", "two"):
        podman("push", "--tls-verify=false", "localhost/tagged:1", f"{registry.host}/{repository}:{tag}")
    shown = podman("search", "--list-tags", "--tls-verify=false", f"{registry.host}/{repository}")
    assert [line.split()[-1] for line in shown.lines] == ["TAG", "one", "two"]
