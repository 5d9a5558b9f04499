"""Clients that take minutes to build, and the engine's containerd: helm, cosign, ctr (``make test-clients``)."""

import json
from pathlib import Path

import pytest

from .engine import BASE_IMAGE, Engine
from .images import ARCHITECTURES, random_bytes, write_layout
from .programs import Program, find, missing, program
from .wire import Registry, digest_of

pytestmark = [pytest.mark.clients, pytest.mark.allclients, pytest.mark.xdist_group("engine")]


@pytest.fixture
def helm(home: Path) -> Program:
    """Helm with settings of its own."""
    return program("helm", home)


@pytest.fixture
def cosign(home: Path) -> Program:
    """Cosign with an empty password and no telemetry of a public log."""
    found = program("cosign", home)
    return Program(found.path, {**found.environment, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"})


@pytest.fixture
def ctr(engine: Engine, home: Path) -> Program:
    """Containerd's own client, on the test engine's containerd."""
    if find("ctr") is None:
        missing("ctr is absent; run as root: python3 scripts/tools.py install")
    return program("ctr", home, "--address", str(engine.containerd_socket), "--namespace", "tagtrail-test")


@pytest.mark.parametrize("version", ["0.1.0", "1.2.3+build.7"])
def test_helm_pulls_the_chart_that_it_pushed(
    helm: Program, registry: Registry, repository: str, tmp_path: Path, version: str
) -> None:
    """A plus in the version works too; helm writes it as an underscore in the tag."""
    helm("create", "trail", cwd=tmp_path)
    helm("package", "trail", f"--version={version}", cwd=tmp_path)
    packed = tmp_path / f"trail-{version}.tgz"
    helm("push", packed, f"oci://{registry.host}/{repository}", "--plain-http")
    assert registry.tags(f"{repository}/trail") == [version.replace("+", "_")]
    (tmp_path / "back").mkdir()
    chart = f"oci://{registry.host}/{repository}/trail"
    helm("pull", chart, f"--version={version}", "--plain-http", "-d", tmp_path / "back")
    assert (tmp_path / "back" / packed.name).read_bytes() == packed.read_bytes()
    assert f"version: {version}" in helm("show", "chart", chart, f"--version={version}", "--plain-http").text


def test_helm_finds_the_newest_version_by_range(
    helm: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Helm lists all tags to resolve a range."""
    helm("create", "trail", cwd=tmp_path)
    for version in ("1.0.0", "1.9.0", "1.10.0", "2.0.0"):
        helm("package", "trail", f"--version={version}", cwd=tmp_path)
        helm("push", tmp_path / f"trail-{version}.tgz", f"oci://{registry.host}/{repository}", "--plain-http")
    helm(
        "pull", f"oci://{registry.host}/{repository}/trail", "--version=^1.0.0", "--plain-http", cwd=tmp_path / "trail"
    )
    assert (tmp_path / "trail" / "trail-1.10.0.tgz").exists()


def test_cosign_verifies_what_it_signed(
    cosign: Program, crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """It signs with a key pair and without a public log; another key does not verify."""
    layout = write_layout(tmp_path / "out", repository)
    name = f"{registry.host}/{repository}"
    crane("push", layout.folder, f"{name}:v1")
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        cosign("generate-key-pair", cwd=tmp_path / folder)
    image = f"{name}@{layout.digest}"
    offline = ["--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry"]
    cosign("sign", f"--key={tmp_path}/ours/cosign.key", *offline, image)
    verify = ["verify", "--insecure-ignore-tlog=true", "--allow-http-registry"]
    verified = json.loads(cosign(*verify, f"--key={tmp_path}/ours/cosign.pub", f"{name}:v1").text)
    assert verified[0]["critical"]["image"]["docker-manifest-digest"] == layout.digest
    assert cosign.attempt(*verify, f"--key={tmp_path}/theirs/cosign.pub", image).code != 0


def test_cosign_verifies_an_attestation(
    cosign: Program, crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository)
    image = f"{registry.host}/{repository}@{layout.digest}"
    crane("push", layout.folder, f"{registry.host}/{repository}:v1")
    cosign("generate-key-pair", cwd=tmp_path)
    (tmp_path / "predicate.json").write_text('{"made": "by hand"}')
    what = ["--type=custom", "--allow-http-registry"]
    offline = ["--tlog-upload=false", "--use-signing-config=false"]
    predicate = f"--predicate={tmp_path}/predicate.json"
    cosign("attest", *what, *offline, predicate, f"--key={tmp_path}/cosign.key", image)
    key = f"--key={tmp_path}/cosign.pub"
    assert cosign("verify-attestation", *what, "--insecure-ignore-tlog=true", key, image).text


def test_ctr_pulls_and_pushes(
    engine: Engine, ctr: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    """Containerd pulls what docker pushed, and pushes it under another name with the same digest."""
    reference = f"{registry.host}/{repository}:v1"
    (tmp_path / "file").write_bytes(random_bytes(reference, 500_000))
    engine.build(tmp_path, f"FROM {BASE_IMAGE}\nCOPY file /file\n", reference)
    engine.docker("push", reference)
    digest = registry.manifest(repository, "v1").digest
    ctr("images", "pull", "--plain-http", reference)
    assert digest in ctr("images", "ls", f"name=={reference}").text
    again = f"{registry.host}/{repository}-b:v2"
    ctr("images", "tag", reference, again)
    ctr("images", "push", "--plain-http", again)
    assert registry.manifest(f"{repository}-b", "v2").digest == digest


def test_ctr_copies_a_multi_arch_image(
    ctr: Program, crane: Program, registry: Registry, repository: str, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "out", repository, architectures=ARCHITECTURES)
    reference, again = f"{registry.host}/{repository}:multi", f"{registry.host}/{repository}-b:multi"
    crane("push", "--index", layout.folder, reference)
    digest = registry.manifest(repository, "multi").digest
    ctr("images", "pull", "--plain-http", "--all-platforms", reference)
    ctr("images", "tag", reference, again)
    ctr("images", "push", "--plain-http", again)
    pushed = registry.manifest(f"{repository}-b", "multi")
    assert pushed.digest == digest == digest_of(pushed.body)
    assert registry.manifest(f"{repository}-b", layout.digest).body == layout.manifest
