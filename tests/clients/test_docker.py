"""docker with a real engine: what is pushed comes back the same, single and multi-arch."""

import json
import re
from pathlib import Path

import pytest

from tests.servers import assert_fed_by_kafka

from .engine import BASE_IMAGE, Engine
from .images import ARCHITECTURES, docker_archive, random_bytes
from .wire import Registry, digest_of

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("engine")]

DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKERFILE = f"FROM {BASE_IMAGE}\nCOPY small /small\nCOPY big /big\nENV NAME=trail\nLABEL who=tagtrail\n"


def _build(engine: Engine, folder: Path, reference: str, *, big_bytes: int = 300_000) -> bytes:
    """Build a three-layer image whose bytes nobody else has; answers what its file /big holds."""
    folder.mkdir(parents=True, exist_ok=True)
    big = random_bytes(reference, big_bytes)
    (folder / "small").write_text(reference)
    (folder / "big").write_bytes(big)
    engine.build(folder, DOCKERFILE, reference)
    return big


def _file_in(engine: Engine, reference: str, path: str) -> bytes:
    """The bytes of a file, read in a container of the image."""
    return engine.docker("run", "--rm", "--network=host", reference, "/bin/cat", path).stdout


def _pushed_digest(output: str) -> str:
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
    assert found, output
    return found[1]


def test_docker_pulls_back_the_image_it_pushed(
    request: pytest.FixtureRequest, engine: Engine, registry_in_each_mode: Registry, repository: str, tmp_path: Path
) -> None:
    """A write that was answered is read back at once, in each mode of the projector."""
    registry = registry_in_each_mode
    reference = f"{registry.host}/{repository}:v1"
    big = _build(engine, tmp_path / "image", reference, big_bytes=20_000_000)
    image_id = engine.image_id(reference)

    digest = _pushed_digest(engine.docker("push", reference).text)
    assert registry.manifest(repository, "v1").digest == digest
    assert registry.tags(repository) == ["v1"]
    engine.docker("rmi", "-f", image_id)
    assert not engine.has(reference)

    pulled = engine.docker("pull", reference).text
    assert f"Digest: {digest}" in pulled
    assert pulled.count("Pull complete") >= 2, "the layers must have come over the wire"
    assert engine.image_id(reference) == image_id
    assert _file_in(engine, reference, "/big") == big
    if "[kafka]" in request.node.name:
        assert_fed_by_kafka(registry.host)


def test_docker_pulls_by_digest(engine: Engine, registry: Registry, repository: str, tmp_path: Path) -> None:
    reference = f"{registry.host}/{repository}:v1"
    _build(engine, tmp_path, reference)
    image_id = engine.image_id(reference)
    digest = _pushed_digest(engine.docker("push", reference).text)
    engine.docker("rmi", "-f", image_id)
    by_digest = f"{registry.host}/{repository}@{digest}"
    engine.docker("pull", by_digest)
    assert engine.image_id(by_digest) == image_id
    assert json.loads(engine.docker("image", "inspect", "--format={{json .RepoDigests}}", by_digest).text) == [
        by_digest
    ]


def test_a_second_push_of_the_same_image_uploads_nothing(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    reference = f"{registry.host}/{repository}:v1"
    _build(engine, tmp_path, reference)
    first = engine.docker("push", reference).text
    again = engine.docker("push", reference).text
    assert "Pushed" in first
    assert again.count("Layer already exists") == 3
    assert _pushed_digest(again) == _pushed_digest(first)


def test_docker_mounts_layers_into_another_repository(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """The second repository gets the layers without their bytes being sent again."""
    source, target = f"{registry.host}/{repository}:v1", f"{registry.host}/{repository}-b:v1"
    _build(engine, tmp_path, source)
    digest = _pushed_digest(engine.docker("push", source).text)
    engine.docker("tag", source, target)
    pushed = engine.docker("push", target).text
    assert f"Mounted from {repository}" in pushed
    assert _pushed_digest(pushed) == digest
    assert registry.manifest(f"{repository}-b", "v1").body == registry.manifest(repository, "v1").body


def test_docker_pushes_all_tags_at_once(engine: Engine, registry: Registry, repository: str, tmp_path: Path) -> None:
    names = [f"{registry.host}/{repository}:{tag}" for tag in ("a", "b", "c")]
    for number, name in enumerate(names):
        _build(engine, tmp_path / str(number), name)
    engine.docker("push", "--all-tags", f"{registry.host}/{repository}")
    assert registry.tags(repository) == ["a", "b", "c"]
    engine.docker("pull", "--all-tags", f"{registry.host}/{repository}")


def test_a_tag_pushed_again_moves(engine: Engine, registry: Registry, repository: str, tmp_path: Path) -> None:
    reference = f"{registry.host}/{repository}:latest"
    _build(engine, tmp_path / "one", reference)
    first = _pushed_digest(engine.docker("push", reference).text)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "other").write_text("other")
    engine.build(tmp_path / "two", f"FROM {BASE_IMAGE}\nCOPY other /other\n", reference)
    second = _pushed_digest(engine.docker("push", reference).text)
    assert first != second
    assert registry.manifest(repository, "latest").digest == second
    assert registry.manifest_status(repository, first) == 200


def test_docker_manifest_makes_a_multi_arch_image(engine: Engine, registry: Registry, repository: str) -> None:
    """Two architectures under one tag; each pull gets its own."""
    listed = f"{registry.host}/{repository}:multi"
    ids = {}
    for architecture in ARCHITECTURES:
        reference = f"{registry.host}/{repository}:{architecture}"
        engine.docker("load", stdin=docker_archive(reference, architecture))
        ids[architecture] = engine.image_id(reference)
        engine.docker("push", reference)
    children = [f"{registry.host}/{repository}:{architecture}" for architecture in ids]
    engine.docker("manifest", "create", "--insecure", listed, *children)
    digest = engine.docker("manifest", "push", "--insecure", listed).text.split()[-1]

    stored = registry.manifest(repository, "multi")
    assert stored.media_type == DOCKER_MANIFEST_LIST
    assert digest_of(stored.body) == digest
    assert {m["platform"]["architecture"] for m in stored.json()["manifests"]} == set(ids)
    for architecture, image_id in ids.items():
        engine.docker("rmi", "-f", image_id)
        engine.docker("pull", f"--platform=linux/{architecture}", listed)
        assert engine.image_id(listed) == image_id
        shown = engine.docker("image", "inspect", "--format={{.Architecture}}", listed).text
        assert shown == architecture
